"""What a compiled step is, in a line for people, and how well it uses the devices."""

from __future__ import annotations

from collections.abc import Callable

import jax

from vision.core import flops
from vision.core.compile import Compiled
from vision.core.net import count_params
from vision.core.prepare import Prepared


def summary(prepared: Prepared, compiled: Compiled, flops: int) -> str:
    """Parameters, devices, examples and cost of a run.

    Args:
      prepared: its parts.
      compiled: its step.
      flops: model FLOPs of a step, on all devices together.
    """
    step, params = prepared.step, compiled.abstract.params
    kinds = ", ".join(f"{count} {kind}" for kind, count in compiled.collectives.items())
    memory = compiled.memory.get("arguments", 0) + compiled.memory.get("temporaries", 0)
    players = {player.name: player for player in step.players(params)}
    described = {
        name: player.optimizer.describe(player.of(params)) for name, player in players.items()
    }
    trained = "; ".join(f"{name} {text}".strip() for name, text in described.items() if text)
    return (
        f"{count_params(params):,} parameters; "
        + (f"{trained}; " if trained else "")
        + f"{prepared.mesh.size} {jax.devices()[0].device_kind} device(s); "
        f"{prepared.data_spec.num_examples:,} examples; batch {step.train_length.batch_size}; "
        f"{step.train_length.total_steps:,} steps of {flops / 1e9:.3g} GFLOP"
        + (f", {memory / 1e6:,.0f} MB a device" if memory else "")
        + (f", {kinds}" if kinds else "")
    )


def utilisation(prepared: Prepared, count: int) -> Callable[[float], float | None]:
    """Model FLOPs utilisation of a step of ``count`` FLOPs, by its seconds; see
    ``vision.core.flops.mfu``."""
    precision = getattr(prepared.experiment.model, "precision", None)
    dtype = getattr(precision, "compute", "float32")
    products = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    devices = list(prepared.mesh.devices.flat)
    return lambda seconds: flops.mfu(count, seconds, devices, dtype, products)
