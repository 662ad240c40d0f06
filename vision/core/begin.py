"""The state that a run begins with: fresh, or with weights from elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from vision.core import cluster
from vision.core.checkpoint import Checkpoints, CheckpointStore
from vision.core.compile import fresh, lay_out
from vision.core.config import build
from vision.core.errors import UserError
from vision.core.experiment import (
    Experiment,
    InitialWeights,
    assemble,
    make_step,
    observe,
)
from vision.core.mesh import batch_share, to_device
from vision.core.net import Tree
from vision.core.objective import Variables
from vision.core.schema import ConfigError
from vision.core.state import State
from vision.core.step import Step
from vision.core.workdir import DATA_SPEC, WorkdirError, open_workdir

log = logging.getLogger(__name__)
# What objectives call the network that is ``Experiment.model``.
_NETWORK = "model"


def begin(config: ml_collections.ConfigDict, workdir: Path) -> None:
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
            data = build(config.data)
            data_spec = observe(data)
            data_spec.save(workdir / DATA_SPEC)
            experiment = assemble(config, data_spec, data)
            step = make_step(experiment, data_spec, data.batch_ops, data.batch_size)
            shapes = {name: jax.ShapeDtypeStruct(*spec) for name, spec in data_spec.batch.items()}
            mesh = experiment.mesh.build()
            abstract = lay_out(step, shapes, mesh, experiment.sharding)
            make = fresh(step, shapes, abstract, mesh)
            state = starting(experiment, step, abstract, make, mesh)()
            if not store.save(0, state, {"step": 0}, wait=True):
                raise WorkdirError(f"the checkpoint could not be written to {workdir}")
        finally:
            store.close()


def starting(
    experiment: Experiment,
    step: Step,
    abstract: State,
    make: Callable[[], State],
    mesh: jax.sharding.Mesh,
) -> Callable[[], State]:
    """Makes the states that a run begins with.

    Fresh ones have the weights of ``experiment.init_from`` put into them, if that is set; then the
    objective sees the first training batch, if it has a method ``begin``. What is derived from
    parameters, the optimizer's state and their average, is derived from those. The other networks
    of the objective are as the weights leave them, and its slots as it made them.

    Raises:
      ConfigError: the objective has no network called ``model``, which the weights are for.
    """
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    if experiment.init_from is not None:
        make = _loading(experiment, experiment.init_from, step, shardings, make, mesh)
    if not hasattr(experiment.objective, "begin"):
        return make

    def init() -> State:
        state, batch = make(), _first_batch(experiment, mesh)
        with jax.set_mesh(mesh):
            return jax.jit(step.init_from_batch, out_shardings=shardings)(state, batch)

    return init


def _first_batch(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    part, parts = batch_share(mesh)
    loader = experiment.data.loader(
        seed=experiment.seed, first_batch=0, process_index=part, process_count=parts
    )
    try:
        return to_device(next(loader), mesh)
    finally:
        loader.close()


def _loading(
    experiment: Experiment,
    weights: InitialWeights,
    step: Step,
    shardings: Any,
    make: Callable[[], State],
    mesh: jax.sharding.Mesh,
) -> Callable[[], State]:
    model = experiment.model
    if model is None or _NETWORK not in shardings.params:
        raise ConfigError("config.init_from fills config.model, which this objective does not use")

    def fill(state: State, loaded: Mapping[str, Tree]) -> State:
        params = {**state.params, **loaded["objective"], _NETWORK: loaded["params"]}
        model_state = dict(state.model_state)
        if _NETWORK in model_state:
            model_state[_NETWORK] = loaded["model_state"]
        slots = {name: x for name, x in state.slots.items() if name != "ema"}
        return step.init_state(state, Variables(params, model_state, slots))

    def init() -> State:
        state = make()
        unfilled = {
            "params": state.params[_NETWORK],
            "model_state": state.model_state.get(_NETWORK, {}),
            "objective": {k: tree for k, tree in state.params.items() if k != _NETWORK},
        }
        loaded = load_together(lambda: weights.load(model, unfilled))
        if cluster.is_main():
            for line in weights.remarks(_evaluations(experiment)):
                log.warning("init_from: %s", line)
        with jax.set_mesh(mesh):
            return jax.jit(fill, out_shardings=shardings)(state, loaded)

    return init


def _evaluations(experiment: Experiment) -> dict[str, tuple[Any, ...]]:
    """Place in the config to the ops of an evaluator's data."""
    found = {
        f"evaluators.{name}.data.ops": getattr(getattr(evaluator, "data", None), "ops", ())
        for name, evaluator in (experiment.evaluators or {}).items()
    }
    return {name: tuple(ops) for name, ops in found.items() if ops}


def load_together(load: Callable[[], Mapping[str, Tree]]) -> Mapping[str, Tree]:
    """What ``load`` returns; where it fails on a process, an error on every one."""
    loaded, problem = {}, None
    try:
        loaded = load()
    except UserError as error:
        problem = error
    told = cluster.gather(None if problem is None else str(problem))
    if problem is not None:
        raise problem
    for process, text in enumerate(told):
        if text is not None:
            raise UserError(f"process {process} cannot start from config.init_from: {text}")
    return loaded
