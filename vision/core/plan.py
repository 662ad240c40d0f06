"""An experiment made ready to run: its step compiled, its lengths in steps."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from vision.core import cluster, flops
from vision.core.compile import Compiled, compile_step
from vision.core.errors import UserError
from vision.core.experiment import Experiment, Facts, make_step
from vision.core.net import Tree, count_params
from vision.core.schedule import Every
from vision.core.schema import ConfigError
from vision.core.state import State
from vision.core.step import Step

log = logging.getLogger(__name__)
# What objectives call the network that is ``Experiment.model``.
_NETWORK = "model"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the loop follows.

    Attributes:
      step: the step and its horizon.
      mesh: the devices.
      compiled: the step, compiled for the mesh.
      flops: model FLOPs of a step, on all devices together.
      log_every: when a row is written.
      save_every: when the state is saved.
      eval_every: name of an evaluator to when it runs while training.
      seconds: that compiling took.
      summary: all of this in a line for people.
    """

    step: Step
    mesh: jax.sharding.Mesh
    compiled: Compiled
    flops: int
    log_every: Every
    save_every: Every
    eval_every: Mapping[str, Every]
    seconds: float
    summary: str

    @property
    def total(self) -> int:
        """Length of the run in steps."""
        return self.step.horizon.total_steps

    def mfu(self, experiment: Experiment) -> Callable[[float], float | None]:
        """Model FLOPs utilisation of a step, by its seconds; see ``vision.core.flops.mfu``."""
        precision = getattr(experiment.model, "precision", None)
        dtype = getattr(precision, "compute", "float32")
        products = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        devices = list(self.mesh.devices.flat)
        return lambda seconds: flops.mfu(self.flops, seconds, devices, dtype, products)


def plan(experiment: Experiment, facts: Facts) -> Plan:
    """Builds and compiles the step of an experiment.

    Raises:
      UserError: lengths, sharding rules, optimizer rules or accumulation that do not fit.
    """
    batch_size = experiment.data.batch_size
    step = make_step(experiment, facts, experiment.data.batch_ops, batch_size)
    mesh = experiment.mesh.build()
    every = step.horizon.every
    rhythms = {
        name: every(distance, f"evaluators.{name}.every")
        for name, evaluator in (experiment.evaluators or {}).items()
        if (distance := getattr(evaluator, "every", None)) is not None
    }
    log_every = every(experiment.log_every, "log_every")
    save_every = every(experiment.checkpoints.every, "checkpoints.every")
    started = time.perf_counter()
    shapes = {name: jax.ShapeDtypeStruct(*spec) for name, spec in facts.batch.items()}
    compiled = compile_step(step, shapes, mesh, experiment.sharding)
    if experiment.init_from is not None:
        compiled = dataclasses.replace(compiled, init=starting(experiment, step, compiled, mesh))
    work = step.flops(compiled.abstract, shapes)  # pyright: ignore[reportArgumentType] - shapes do
    kinds = ", ".join(f"{count} {kind}" for kind, count in compiled.collectives.items())
    memory = compiled.memory.get("arguments", 0) + compiled.memory.get("temporaries", 0)
    trained = experiment.optimizer.describe(compiled.abstract.params)
    summary = (
        f"{count_params(compiled.abstract.params):,} parameters; "
        + (f"{trained}; " if trained else "")
        + f"{mesh.size} {jax.devices()[0].device_kind} device(s); "
        f"{facts.num_examples:,} examples; batch {batch_size}; "
        f"{step.horizon.total_steps:,} steps of {work / 1e9:.3g} GFLOP"
        + (f", {memory / 1e6:,.0f} MB a device" if memory else "")
        + (f", {kinds}" if kinds else "")
    )
    return Plan(
        step=step,
        mesh=mesh,
        compiled=compiled,
        flops=work,
        log_every=log_every,
        save_every=save_every,
        eval_every=rhythms,
        seconds=time.perf_counter() - started,
        summary=summary,
    )


def starting(
    experiment: Experiment, step: Step, compiled: Compiled, mesh: jax.sharding.Mesh
) -> Callable[[], State]:
    """Makes fresh states whose model has the weights of ``experiment.init_from``.

    What is derived from parameters, the optimizer's state and their average, is derived from
    those. The other networks of the objective are as the weights leave them, and its slots as it
    made them.

    Raises:
      ConfigError: the objective has no network called ``model``, which the weights are for.
    """
    weights, model = experiment.init_from, experiment.model
    if weights is None or model is None or _NETWORK not in compiled.abstract.params:
        raise ConfigError("config.init_from fills config.model, which this objective does not use")

    def begin(state: State, loaded: Mapping[str, Tree]) -> State:
        params = {**state.params, **loaded["objective"], _NETWORK: loaded["params"]}
        model_state = dict(state.model_state)
        if _NETWORK in model_state:
            model_state[_NETWORK] = loaded["model_state"]
        slots = dict(state.slots)
        if step.ema is not None:
            slots["ema"] = step.ema.init(params, model_state)
        opt_state = step.optimizer.build(params, step.horizon).init(params)
        return dataclasses.replace(
            state, params=params, model_state=model_state, opt_state=opt_state, slots=slots
        )

    def init() -> State:
        state = compiled.init()
        fresh = {
            "params": state.params[_NETWORK],
            "model_state": state.model_state.get(_NETWORK, {}),
            "objective": {k: tree for k, tree in state.params.items() if k != _NETWORK},
        }
        loaded = load_together(lambda: weights.load(model, fresh))
        if cluster.is_main():
            for line in weights.remarks(_evaluations(experiment)):
                log.warning("init_from: %s", line)
        shardings = jax.tree.map(lambda x: x.sharding, compiled.abstract)
        with jax.set_mesh(mesh):
            return jax.jit(begin, out_shardings=shardings)(state, loaded)

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
