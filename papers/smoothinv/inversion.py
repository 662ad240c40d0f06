"""Climbing to a class from one image, by steps of a network: a rule of ``vision.blocks.attack``."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vision.blocks.attack import AttackState, Memory, project
from vision.blocks.attack_rules import check_radius, cross_entropy, direction
from vision.config.ranges import Finite, Fraction, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class Inversion:
    """Gradients of unit length with momentum, clipped to 0..1 and then to the ball.

    Without momentum, and where the rate is never halved, it is targeted PGD in ``l2`` from the
    image. The perturbation is that of the last image, ``state.at``.

    Attributes:
      eps: Euclidean radius of the ball; pixels are in 0..1.
      steps: number of steps.
      step_size: of the first steps, as a share of ``eps``.
      momentum: of the steps, 0..1.
      halve_every: steps after which the size halves.
    """

    eps: Positive[Finite] = 10.0
    steps: Positive[int] = 400
    step_size: Positive[float] = 0.05
    momentum: Fraction = 0.9
    halve_every: Positive[int] = 300

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.eps, "l2")

    @property
    def targeted(self) -> bool:
        return True

    @property
    def moves(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return 1

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        return image, {"velocity": jnp.zeros_like(image)}

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        return cross_entropy(logits, label, targeted=True)

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
        velocity = self.momentum * state.memory["velocity"] + direction("l2", gradient)
        size = self.step_size * self.eps * 0.5 ** (place // self.halve_every)
        moved = jnp.clip(state.at + size * velocity, 0, 1)
        # Nothing follows the last look, which has no gradient either.
        at = jnp.where(place < self.steps, project("l2", self.eps, state.image, moved), state.at)
        return at, {"velocity": velocity}
