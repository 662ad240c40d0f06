"""One perturbation for all images: a rule of ``vision.blocks.attack``, of pixels or activations."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vision.blocks.attack import AttackState, Memory, Norm, length
from vision.blocks.attack_rules import check_radius, cross_entropy, direction
from vision.config.ranges import Finite, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class Universal:
    """Projected gradient steps of one perturbation that is added to every image of the batch.

    The direction is that of the summed gradient of the images that are attacked. The perturbation
    is ``state.memory["delta"]``, equal rows; ``found`` and ``best`` are of single images on the
    way. With one image and pixels away from 0 and 1 it is PGD without a random start.

    Attributes:
      eps: radius of the ball: of pixels in 0..1, or as a share of the mean Euclidean length of the
        batch's activations.
      norm: of the ball and the direction; ``l2`` for activations.
      steps: number of steps.
      step_size: as a share of ``eps``.
      targeted: labels are target classes.
      pixels: points are images and stay in 0..1; else activations, which have no range.
    """

    eps: Positive[Finite] = 16 / 255
    norm: Norm = "linf"
    steps: Positive[int] = 40
    step_size: Positive[float] = 0.1
    targeted: bool = True
    pixels: bool = True

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.pixels:
            check_radius(self.eps, self.norm)
        elif self.norm != "l2":
            raise ValueError(f"norm={self.norm!r}: the radius in activations is of 'l2'")

    @property
    def moves(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return 1

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        mean = 1.0 if self.pixels else length(image).mean()
        radius = jnp.full((len(image), 1, 1, 1), self.eps * mean, jnp.float32)
        return image, {"delta": jnp.zeros_like(image), "radius": radius}

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        return cross_entropy(logits, label, self.targeted)

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        return margin

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        delta, radius = state.memory["delta"], state.memory["radius"]
        attacked = state.active[:, None, None, None]
        slope = jnp.where(attacked, gradient, 0).sum(0, keepdims=True)
        delta = delta + self.step_size * radius * direction(self.norm, slope)
        if self.norm == "linf":
            delta = jnp.clip(delta, -radius, radius)
        else:
            delta = delta * jnp.minimum(1, radius / jnp.maximum(length(delta), 1e-12))
        at = state.image + delta
        return jnp.clip(at, 0, 1) if self.pixels else at, {"delta": delta, "radius": radius}
