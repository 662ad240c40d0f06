"""ColorAdapt: an augmentation of token vectors by the channel statistics of another image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vision.config.ranges import Fraction, checked


@dataclasses.dataclass(frozen=True)
@checked
class ColorAdapt:
    """Batch op: images take the statistics of the previous row, unless either row is invalid.

    Attributes:
      probability: of changing a row.
    """

    probability: Fraction = 0.5

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        image, mask = batch["image"], batch["_mask"]
        chosen = jax.random.bernoulli(key, self.probability, mask.shape)
        chosen &= mask & jnp.roll(mask, 1)
        adapted = color_adapt(image, jnp.roll(image, 1, axis=0))
        return {**batch, "image": jnp.where(chosen[:, None, None, None], adapted, image)}


def color_adapt(x: jax.Array, other: jax.Array) -> jax.Array:
    """``x`` (B, h, w, d) with mean and deviation over positions of ``other``, per channel.

    Computed as an update of ``x``, so that with its own statistics ``x`` is unchanged bit for bit.
    """
    (mean, deviation), (other_mean, other_deviation) = (
        (jnp.mean(y, (1, 2), keepdims=True), jnp.std(y, (1, 2), keepdims=True) + 1e-6)
        for y in (x, other)
    )
    return x + (x - mean) * (other_deviation / deviation - 1) + (other_mean - mean)
