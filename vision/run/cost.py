"""What a step costs: its model FLOPs, in a line for people and as a share of the devices' peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from vision.run.compile import Compiled
from vision.run.prepare import Prepared
from vision.train import flops
from vision.train.tower import count_params


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a compiled step costs.

    Attributes:
      mfu: model FLOPs utilisation (0 to 1) of a step that takes so many seconds; None where the
        peak of the devices is not known.
      summary: parameters, devices, examples and cost, in a line.
    """

    mfu: Callable[[float], float | None]
    summary: str


def cost_of(prepared: Prepared, compiled: Compiled) -> StepCost:
    """The cost of a prepared run's step."""
    step, params, mesh = prepared.step, compiled.abstract.params, prepared.mesh
    work = step.flops(compiled.abstract, prepared.batch)  # pyright: ignore[reportArgumentType] - shapes do
    dtype = getattr(getattr(prepared.experiment.model, "precision", None), "compute", "float32")
    products = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    devices = list(mesh.devices.flat)

    kinds = ", ".join(f"{count} {kind}" for kind, count in compiled.collectives.items())
    memory = compiled.memory.get("arguments", 0) + compiled.memory.get("temporaries", 0)
    described = {
        update.phase: update.optimizer.describe(update.trained(params), update.towers)
        for update in step.phase_updates(params)
    }
    trained = "; ".join(f"{name} {text}".strip() for name, text in described.items() if text)
    summary = (
        f"{count_params(params):,} parameters; "
        + (f"{trained}; " if trained else "")
        + f"{mesh.size} {jax.devices()[0].device_kind} device(s); "
        f"{prepared.data_spec.num_examples:,} examples; batch {step.train_length.batch_size}; "
        f"{step.train_length.total_steps:,} steps of {work / 1e9:.3g} GFLOP"
        + (f", {memory / 1e6:,.0f} MB a device" if memory else "")
        + (f", {kinds}" if kinds else "")
    )
    return StepCost(lambda seconds: flops.mfu(work, seconds, devices, dtype, products), summary)
