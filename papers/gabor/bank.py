"""Gabor filters that are learned, each within its own interval, and statistics of what they see."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Positive, checked

LOWEST, HIGHEST = 0.05, 0.45
"""Cycles per pixel that the intervals of frequencies cover together."""


def intervals(orientations: int, frequencies: int) -> np.ndarray:
    """float32 (orientations * frequencies, 5, 2): from where to where each filter's values go.

    Angle in radians, frequency in cycles per pixel (a geometric row), width of the envelope in
    periods, its aspect, phase in radians. Angles and frequencies of all filters cover the half
    plane without overlap.
    """
    angle = np.linspace(0, np.pi, orientations + 1)
    frequency = np.geomspace(LOWEST, HIGHEST, frequencies + 1)
    rows = [
        ((a0, a1), (f0, f1), (0.3, 0.7), (0.5, 1.0), (0.0, np.pi))
        for f0, f1 in itertools.pairwise(frequency)
        for a0, a1 in itertools.pairwise(angle)
    ]
    return np.array(rows, np.float32)


def values_at(place: jax.Array, orientations: int, frequencies: int) -> jax.Array:
    """(F, 5) within ``intervals``, in their middle for ``place`` (F, 5) of 0."""
    low, high = np.moveaxis(intervals(orientations, frequencies), 2, 0)
    return low + (high - low) * jax.nn.sigmoid(place)


def kernels_of(values: jax.Array, side: int) -> jax.Array:
    """Filters float32 (side, side, F), without a mean and of length 1, from values (F, 5).

    exp(-(x'^2 + aspect^2 y'^2) / (2 width^2)) cos(2 pi frequency x' + phase), where x', y' are
    turned by the angle.
    """
    angle, frequency, periods, aspect, phase = values.T
    y, x = jnp.mgrid[:side, :side].astype(jnp.float32)[..., None] - (side - 1) / 2
    along = x * jnp.cos(angle) + y * jnp.sin(angle)
    across = -x * jnp.sin(angle) + y * jnp.cos(angle)
    width = periods / frequency
    envelope = jnp.exp(-(along**2 + (aspect * across) ** 2) / (2 * width**2))
    filters = envelope * jnp.cos(2 * jnp.pi * frequency * along + phase)
    filters = filters - filters.mean((0, 1))
    return filters / (jnp.sqrt(jnp.square(filters).sum((0, 1))) + 1e-6)


@checked
class GaborBank(nn.Module):
    """Grey images (N, S, S) to their responses (N, S - side + 1, S - side + 1, F), float32.

    Attributes:
      orientations: intervals of angles.
      frequencies: intervals of frequencies; F is the product.
      side: of the filters, in pixels.
    """

    orientations: Positive[int]
    frequencies: Positive[int]
    side: Positive[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if min(x.shape[1:]) < self.side:
            raise ValueError(f"regions of {x.shape[1:]} pixels are smaller than side={self.side}")
        count = self.orientations * self.frequencies
        place = self.param("place", nn.initializers.zeros, (count, 5))
        values = values_at(place, self.orientations, self.frequencies)
        filters = kernels_of(values, self.side)[:, :, None]
        return jax.lax.conv_general_dilated(
            x[..., None].astype(jnp.float32),
            filters,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def statistics(responses: jax.Array) -> jax.Array:
    """Mean size, deviation and log energy of each response: (N, 3 F) of (N, h, w, F)."""
    size, energy = jnp.abs(responses).mean((1, 2)), jnp.square(responses).mean((1, 2))
    mean = responses.mean((1, 2))
    deviation = jnp.sqrt(jnp.maximum(energy - mean**2, 0) + 1e-8)
    return jnp.concatenate([size, deviation, jnp.log(energy + 1e-4)], -1)


class Textures(nn.Module):
    """Grey regions (N, S, S) to texture vectors (N, width), float32.

    Attributes:
      bank: of filters.
      hidden: width of the hidden layer.
      width: of the vectors.
    """

    bank: GaborBank
    hidden: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(name="norm")(statistics(self.bank(x)))
        y = nn.relu(nn.Dense(self.hidden, name="fc1")(y))
        return nn.Dense(self.width, kernel_init=nn.initializers.zeros, name="fc2")(y)
