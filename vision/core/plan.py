"""An experiment made ready to run: its step compiled, its lengths in steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax

from vision.core import flops
from vision.core.begin import starting
from vision.core.compile import Compiled, compile_step
from vision.core.experiment import DataSpec, Experiment, make_step
from vision.core.net import count_params
from vision.core.schedule import Interval
from vision.core.step import Step


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the loop follows.

    Attributes:
      step: the step and its train_length.
      mesh: the devices.
      compiled: the step, compiled for the mesh.
      flops: model FLOPs of a step, on all devices together.
      log_interval: when a row is written.
      save_interval: when the state is saved.
      evaluate_intervals: name of an evaluator to when it runs while training.
      seconds: that compiling took.
      summary: all of this in a line for people.
    """

    step: Step
    mesh: jax.sharding.Mesh
    compiled: Compiled
    flops: int
    log_interval: Interval
    save_interval: Interval
    evaluate_intervals: Mapping[str, Interval]
    seconds: float
    summary: str

    @property
    def total(self) -> int:
        """Length of the run in steps."""
        return self.step.train_length.total_steps

    def mfu(self, experiment: Experiment) -> Callable[[float], float | None]:
        """Model FLOPs utilisation of a step, by its seconds; see ``vision.core.flops.mfu``."""
        precision = getattr(experiment.model, "precision", None)
        dtype = getattr(precision, "compute", "float32")
        products = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        devices = list(self.mesh.devices.flat)
        return lambda seconds: flops.mfu(self.flops, seconds, devices, dtype, products)


def plan(experiment: Experiment, data_spec: DataSpec) -> Plan:
    """Builds and compiles the step of an experiment.

    Raises:
      UserError: lengths, sharding rules, optimizer rules or accumulation that do not fit.
    """
    batch_size = experiment.data.batch_size
    step = make_step(experiment, data_spec, experiment.data.batch_ops, batch_size)
    mesh = experiment.mesh.build()
    interval = step.train_length.interval
    evaluate_intervals = {
        name: interval(distance, f"evaluate_every of {name}")
        for name, distance in experiment.evaluations().items()
    }
    log_interval = interval(experiment.log_every, "log_every")
    save_interval = interval(experiment.checkpoints.every, "checkpoints.every")
    started = time.perf_counter()
    shapes = {name: jax.ShapeDtypeStruct(*spec) for name, spec in data_spec.batch.items()}
    compiled = compile_step(step, shapes, mesh, experiment.sharding)
    begin = starting(experiment, step, compiled.abstract, compiled.init, mesh)
    compiled = dataclasses.replace(compiled, init=begin)
    work = step.flops(compiled.abstract, shapes)  # pyright: ignore[reportArgumentType] - shapes do
    kinds = ", ".join(f"{count} {kind}" for kind, count in compiled.collectives.items())
    memory = compiled.memory.get("arguments", 0) + compiled.memory.get("temporaries", 0)
    players = {player.name: player for player in step.players(compiled.abstract.params)}
    described = {
        name: player.optimizer.describe(player.of(compiled.abstract.params))
        for name, player in players.items()
    }
    trained = "; ".join(f"{name} {text}".strip() for name, text in described.items() if text)
    summary = (
        f"{count_params(compiled.abstract.params):,} parameters; "
        + (f"{trained}; " if trained else "")
        + f"{mesh.size} {jax.devices()[0].device_kind} device(s); "
        f"{data_spec.num_examples:,} examples; batch {batch_size}; "
        f"{step.train_length.total_steps:,} steps of {work / 1e9:.3g} GFLOP"
        + (f", {memory / 1e6:,.0f} MB a device" if memory else "")
        + (f", {kinds}" if kinds else "")
    )
    return Plan(
        step=step,
        mesh=mesh,
        compiled=compiled,
        flops=work,
        log_interval=log_interval,
        save_interval=save_interval,
        evaluate_intervals=evaluate_intervals,
        seconds=time.perf_counter() - started,
        summary=summary,
    )
