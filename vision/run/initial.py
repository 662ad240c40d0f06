"""The state that a run begins with: random, loaded from elsewhere, completed by the data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config.errors import UserError
from vision.config.schema import ConfigError
from vision.parallel import cluster
from vision.parallel.mesh import batch_share, to_device
from vision.run.compile import lay_out, random_state
from vision.run.cursor import RunCursor
from vision.run.experiment import Experiment, InitialWeights
from vision.run.prepare import Prepared, prepare
from vision.run.workdir import DATA_SPEC, WorkdirError, open_workdir
from vision.train.objective import Variables
from vision.train.state import State
from vision.train.tower import Tree

log = logging.getLogger(__name__)
# What objectives call the network that is ``Experiment.model``.
_NETWORK = "model"


def init_state(prepared: Prepared, abstract: State) -> State:
    """The state before the first update of a run, laid out as ``abstract``.

    Its variables are random; the weights of ``config.init_from`` are put into them, if that is
    set; then the objective sees the first training batch, if it uses it. What is derived from
    parameters, the optimizer's state and their average, is derived from those. The other networks
    of the objective are as the weights leave them, and its extra state as it made it.

    Args:
      prepared: with its training data.
      abstract: see ``vision.run.compile.lay_out``.

    Raises:
      UserError: weights that cannot be loaded.
      ConfigError: the objective has no network called ``model``, which the weights are for.
    """
    experiment, step = prepared.experiment, prepared.step
    state = random_state(step, prepared.batch, abstract, prepared.mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    if (weights := experiment.init_from) is not None:
        loaded = _load(experiment, weights, state, prepared.data_spec.class_names)

        def fill(state: State, loaded: Mapping[str, Tree]) -> State:
            return step.init_state(_filled(state, loaded))

        with jax.set_mesh(prepared.mesh):
            state = jax.jit(fill, out_shardings=shardings)(state, loaded)
    if experiment.objective.uses_first_batch:
        batch = _first_batch(prepared)
        with jax.set_mesh(prepared.mesh):
            state = jax.jit(step.init_from_batch, out_shardings=shardings)(state, batch)
    return state


def init_run(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Makes a run that nothing has trained: its state at step 0, to evaluate imported weights.

    A workdir that has a checkpoint already is left as it is. ``train.py`` with the same config
    goes on from there.

    Raises:
      UserError: config, data, weights or workdir that cannot be used.
    """
    with open_workdir(workdir, config):
        store = CheckpointStore(workdir, Checkpoints())
        try:
            if store.steps():
                return
            prepared = prepare(config)
            prepared.data_spec.save(workdir / DATA_SPEC)
            rules = prepared.experiment.sharding
            abstract = lay_out(prepared.step, prepared.batch, prepared.mesh, rules)
            state, cursor = init_state(prepared, abstract), RunCursor(time=time.time())
            if not store.save(cursor.step, state, cursor.to_json(), wait=True):
                raise WorkdirError(f"the checkpoint could not be written to {workdir}")
        finally:
            store.close()


def _first_batch(prepared: Prepared) -> dict[str, jax.Array]:
    part, parts = batch_share(prepared.mesh)
    loader = prepared.experiment.data.loader(
        seed=prepared.experiment.seed, first_batch=0, process_index=part, process_count=parts
    )
    try:
        return to_device(next(loader), prepared.mesh)
    finally:
        loader.close()


def _load(
    experiment: Experiment, weights: InitialWeights, state: State, class_names: tuple[str, ...]
) -> Mapping[str, Tree]:
    """See ``InitialWeights.load``."""
    model = experiment.model
    if model is None or _NETWORK not in state.params:
        raise ConfigError("config.init_from fills config.model, which this objective does not use")
    unfilled = {
        "params": state.params[_NETWORK],
        "model_state": state.model_state.get(_NETWORK, {}),
        "objective": {k: tree for k, tree in state.params.items() if k != _NETWORK},
    }
    loaded = load_together(lambda: weights.load(model, unfilled, class_names))
    if cluster.is_main():
        for line in weights.remarks(_evaluations(experiment)):
            log.warning("init_from: %s", line)
    return loaded


def _filled(state: State, loaded: Mapping[str, Tree]) -> Variables:
    """The variables of a state with the loaded ones in their places. Traceable."""
    params = {**state.params, **loaded["objective"], _NETWORK: loaded["params"]}
    model_state = dict(state.model_state)
    if _NETWORK in model_state:
        model_state[_NETWORK] = loaded["model_state"]
    extra_state = {name: x for name, x in state.extra_state.items() if name != "ema"}
    return Variables(params, model_state, extra_state)


def _evaluations(experiment: Experiment) -> dict[str, tuple[Any, ...]]:
    """Place in the config to the ops of an evaluator's data."""
    ops_by_place = {
        f"evaluators.{name}.data.ops": getattr(getattr(evaluator, "data", None), "ops", ())
        for name, evaluator in (experiment.evaluators or {}).items()
    }
    return {name: tuple(ops) for name, ops in ops_by_place.items() if ops}


def load_together(load: Callable[[], Mapping[str, Tree]]) -> Mapping[str, Tree]:
    """What ``load`` returns; where it fails on a process, an error on every one."""
    loaded, problem = {}, None
    try:
        loaded = load()
    except UserError as error:
        problem = error
    cluster.raise_together(problem)
    return loaded
