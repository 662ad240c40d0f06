"""A run read back: to go on with it, or to use what it has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from vision.checkpoint.reading import compare, flatten, load_state
from vision.checkpoint.store import CheckpointStore
from vision.config.errors import UserError
from vision.config.specs import override
from vision.evaluate.evaluator import Predict
from vision.parallel.mesh import state_shardings
from vision.run.cursor import RunCursor
from vision.run.experiment import DataSpec, Experiment, check
from vision.run.initial import init_state
from vision.run.prepare import Prepared, prepare
from vision.run.workdir import DATA_SPEC, WorkdirError, read_config
from vision.train.objective import Variables
from vision.train.state import State


@dataclasses.dataclass(frozen=True)
class Run:
    """What evaluation, export and fine-tuning need of a run.

    Attributes:
      config: the resolved config, overrides included.
      experiment: its parts; ``data`` is None.
      data_spec: what it learned from its training data.
      step: training step of the variables.
      variables: averaged parameters where the run keeps an average, on ``mesh``.
      predict: ``(variables, batch) -> dict``; one object, so that compiled functions are reused.
      mesh: the devices here, in the shape of ``config.mesh``.
    """

    config: ml_collections.ConfigDict
    experiment: Experiment
    data_spec: DataSpec
    step: int
    variables: Variables
    predict: Predict
    mesh: jax.sharding.Mesh


def restore_or_init(
    store: CheckpointStore, prepared: Prepared, abstract: State, *, restarted: bool = False
) -> tuple[State, RunCursor]:
    """The newest valid checkpoint of a run; where it has none, the state that it begins with.

    Args:
      store: the run's checkpoints; damaged ones are set aside.
      prepared: with its training data.
      abstract: see ``vision.run.compile.lay_out``.
      restarted: whether the run was started before; then an error of ``init_state`` says that
        there is no checkpoint to go on from.

    Raises:
      UserError: a checkpoint of another config, or what ``init_state`` raises.
    """
    if (restored := store.restore(abstract)) is not None:
        state, meta = restored
        return state, RunCursor.from_json(meta)
    try:
        return init_state(prepared, abstract), RunCursor()
    except UserError as error:
        if not restarted:
            raise
        raise UserError(
            f"{store.workdir} has no checkpoint to go on from, so the run begins anew, and: {error}"
        ) from error


def load_run(
    workdir: Path,
    step: int | None = None,
    overrides: Mapping[str, str] | None = None,
    allow: Collection[str] = (),
) -> Run:
    """Reads a checkpoint of a workdir: the newest valid one, or that of ``step``.

    Training data is not needed, and nothing is written.

    Args:
      workdir: folder of a run.
      step: of the checkpoint; None for the newest valid one.
      overrides: changes of its config, see ``vision.config.specs.override``:
        ``{"evaluators.test.data.batch_size": "64"}``.
      allow: see ``read_config``.

    Raises:
      WorkdirError: not the workdir of a run.
      ConfigError: overrides that do not fit.
      CheckpointError: no valid checkpoint, or none of that step.
    """
    config: Any = read_config(workdir, allow)
    for key, text in (overrides or {}).items():
        override(config, key, text, source=str(workdir / "config.json"))
    check(config, str(workdir / "config.json"))
    if not (workdir / DATA_SPEC).exists():
        raise WorkdirError(f"{workdir} has no {DATA_SPEC}: training has not begun there")
    prepared = prepare(config, DataSpec.load(workdir / DATA_SPEC))
    abstract = jax.eval_shape(prepared.step.init, prepared.batch)
    step, stored = load_state(workdir, step)
    names = flatten(abstract)
    compare(stored, names, workdir / "checkpoints" / str(step))
    state = jax.tree.unflatten(jax.tree.structure(abstract), [stored[name] for name in names])
    shardings = state_shardings(state.averaged, prepared.mesh, prepared.experiment.sharding)
    return Run(
        config=config,
        experiment=prepared.experiment,
        data_spec=prepared.data_spec,
        step=step,
        variables=jax.device_put(state.averaged, shardings),
        predict=prepared.predict,
        mesh=prepared.mesh,
    )
