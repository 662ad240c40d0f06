"""A finished or running experiment, read back from its workdir without its training data."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from vision.core.config import build
from vision.core.evaluator import Predict
from vision.core.experiment import DataSpec, Experiment, assemble, check, make_step
from vision.core.mesh import state_shardings
from vision.core.objective import Variables
from vision.core.stored import compare, flatten, load_state
from vision.core.workdir import DATA_SPEC, WorkdirError, read_config


@dataclasses.dataclass(frozen=True)
class Run:
    """What evaluation, export and fine-tuning need of a run.

    Attributes:
      experiment: its parts; ``data`` is None.
      data_spec: what it learned from its training data.
      step: training step of the variables.
      variables: averaged parameters where the run keeps an average, on ``mesh``.
      predict: ``(variables, batch) -> dict``; one object, so that compiled functions are reused.
      mesh: the devices here, in the shape of the config where it fits, else data-parallel.
    """

    experiment: Experiment
    data_spec: DataSpec
    step: int
    variables: Variables
    predict: Predict
    mesh: jax.sharding.Mesh


def load_run(workdir: Path, step: int | None = None) -> Run:
    """Reads a checkpoint of a workdir: the newest valid one, or that of ``step``.

    Nothing is written.

    Raises:
      WorkdirError: not the workdir of a run.
      CheckpointError: no valid checkpoint, or none of that step.
    """
    config: Any = read_config(workdir)
    check(config, str(workdir / "config.json"))
    if not (workdir / DATA_SPEC).exists():
        raise WorkdirError(f"{workdir} has no {DATA_SPEC}: training has not begun there")
    data_spec = DataSpec.load(workdir / DATA_SPEC)
    experiment = assemble(config, data_spec)
    ops, size = build(config.data.batch_ops), config.data.batch_size
    trained = make_step(experiment, data_spec, ops, size)
    shapes = {name: jax.ShapeDtypeStruct(*spec) for name, spec in data_spec.batch.items()}
    abstract = jax.eval_shape(trained.init, shapes)
    step, stored = load_state(workdir, step)
    names = flatten(abstract)
    compare(stored, names, workdir / "checkpoints" / str(step))
    state = jax.tree.unflatten(jax.tree.structure(abstract), [stored[name] for name in names])
    mesh = experiment.mesh.build()
    shardings = state_shardings(state.averaged, mesh, experiment.sharding)
    return Run(
        experiment=experiment,
        data_spec=data_spec,
        step=step,
        variables=jax.device_put(state.averaged, shardings),
        predict=functools.partial(trained.predict),
        mesh=mesh,
    )
