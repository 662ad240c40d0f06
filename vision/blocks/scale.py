"""The learned inverse temperature of contrastive losses, and its bound."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vision.config.ranges import Finite, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class Scale:
    """The inverse temperature that multiplies similarities.

    Attributes:
      initial: initial value: 1/0.07 for CLIP and FILIP, 10 for SigLIP, 1 for ALIGN.
      maximum: the scale never exceeds it (CLIP: 100); None for no bound. Gradients that would
        increase it further are zeroed, others pass. CLIP clips the parameter after every update;
        here it may lie beyond the bound, by an update or its momentum, and takes longer to return.
      learned: False keeps ``initial``.
      form: what is learned: ``log_scale`` a with scale = exp(a) (CLIP, SigLIP), or
        ``temperature`` sigma with scale = 1 / sigma (ALIGN), which then needs a maximum.
    """

    initial: Positive[Finite] = 1 / 0.07
    maximum: Finite | None = 100.0
    learned: bool = True
    form: Literal["log_scale", "temperature"] = "log_scale"

    def __post_init__(self) -> None:
        if self.maximum is not None and self.maximum < self.initial:
            raise ValueError(f"maximum={self.maximum}: at least initial={self.initial}, or None")
        if self.form == "temperature" and self.learned and self.maximum is None:
            raise ValueError("form='temperature' needs a maximum: a temperature can reach 0")

    def parameters(self) -> dict[str, float]:
        if not self.learned:
            return {}
        first = math.log(self.initial) if self.form == "log_scale" else 1 / self.initial
        return {self.form: first}

    def value(self, params: dict[str, Any]) -> jax.Array:
        """The scale, float32 scalar. NaN where the parameter is not finite, infinity included:
        the loss is then NaN too, and the training loop handles it."""
        if not self.learned:
            return jnp.float32(self.initial)
        param = jnp.asarray(params[self.form], jnp.float32)
        param = jnp.where(jnp.isfinite(param), param, jnp.nan)
        if self.form == "temperature":
            return 1 / clamp(param, 1 / (self.maximum or math.inf), math.inf)
        high = math.inf if self.maximum is None else math.log(self.maximum)
        scale = jnp.exp(clamp(param, -math.inf, high))
        # exp(log(maximum)) can be one rounding step above it.
        return scale if self.maximum is None else clamp(scale, 0.0, self.maximum)


@jax.custom_vjp
def clamp(x: jax.Array, low: float, high: float) -> jax.Array:
    """``x`` kept in [low, high]. Its gradient is zero only where descent leads further out."""
    return jnp.clip(x, low, high)


def _clamp_forward(x: jax.Array, low: float, high: float) -> tuple[jax.Array, tuple]:
    return jnp.clip(x, low, high), (x, low, high)


def _clamp_backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, None, None]:
    x, low, high = saved
    outward = ((x >= high) & (g < 0)) | ((x <= low) & (g > 0))
    return jnp.where(outward, 0.0, g), None, None


clamp.defvjp(_clamp_forward, _clamp_backward)
