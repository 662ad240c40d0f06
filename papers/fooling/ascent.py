"""Gradient ascent on the logarithm of a class's probability: a rule of ``vision.blocks.attack``."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vision.blocks.attack import AttackState, Memory
from vision.blocks.attack_rules import cross_entropy, direction
from vision.config.ranges import Finite, NonNegative, Positive, checked

GREY = 0.5


@dataclasses.dataclass(frozen=True)
@checked
class Ascent:
    """Steps of constant length up ``log p_c(x) - decay |x - grey|^2``, in 0..1, without a ball.

    Of all images on the way that are classified as the class the one of largest lead is kept.

    Attributes:
      steps: number of steps.
      step_size: Euclidean length of a step, of pixels in 0..1.
      decay: of the difference from grey, 0.5; 0 for none.
      noise: standard deviation of what is added to the image at the start.
    """

    steps: Positive[int] = 200
    step_size: Positive[float] = 0.5
    decay: NonNegative[Finite] = 0.0
    noise: NonNegative[Finite] = 0.1

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

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
        drawn = jax.vmap(lambda key: jax.random.normal(key, image.shape[1:]))(keys)
        return jnp.clip(image + self.noise * drawn, 0, 1), {}

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
        slope = gradient - 2 * self.decay * (state.at - GREY)
        return jnp.clip(state.at + self.step_size * direction("l2", slope), 0, 1), {}
