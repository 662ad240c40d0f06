"""Rotary positions of patches: queries and keys turn with their place on the grid."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Positive, checked
from vision.models.posemb import Grid


@dataclasses.dataclass(frozen=True)
@checked
class Rope:
    """Rotary positions on two axes (Su et al., RoFormer, 2021; Heo et al., 2024).

    Half of the pairs of numbers in a head turn with the row, half with the column, pair i of
    quarter of the head's width by ``coordinate * temperature ** -(i / quarter)`` radians.

    Attributes:
      coordinates: ``index`` counts patches from 0, ``centered`` are the patches' centres in
        [-1, 1] times 2 pi, as in DINOv3, whatever the number of patches.
      temperature: the longest wavelength is nearly 2 pi times this, in patches.
      reference: rows and columns on which a grid is stretched before it is counted, those of
        training; None counts patches as they are. Of ``index`` only.
      offset: added to the count; of ``index`` only.
      columns_first: the first half of the pairs turns with the column.
      halves: a pair is number i and number i + half of the head; otherwise 2 i and 2 i + 1.
    """

    coordinates: Literal["index", "centered"] = "index"
    temperature: Positive[float] = 10_000.0
    reference: tuple[Positive[int], Positive[int]] | None = None
    offset: float = 0.0
    columns_first: bool = False
    halves: bool = False

    def __post_init__(self) -> None:
        if self.coordinates == "centered" and (self.reference is not None or self.offset):
            raise ValueError("coordinates='centered' has neither reference nor offset")

    def angles(self, grid: Grid, width: int) -> np.ndarray:
        """(rows * columns, width) float32 radians, for heads of ``width`` numbers."""
        if width % 4:
            raise ValueError(f"rotary positions need heads of a multiple of 4, not {width}")
        axes = []
        for axis, count in enumerate(grid):
            if self.coordinates == "centered":
                place = (np.arange(count, dtype=np.float32) + 0.5) / count * 2 - 1
                place = place * np.float32(2 * math.pi)
            else:
                place = np.arange(count, dtype=np.float32) + np.float32(self.offset)
                if self.reference is not None:
                    place = place / count * self.reference[axis]
            axes.append(place)
        rows, columns = np.meshgrid(*axes, indexing="ij")
        order = (columns, rows) if self.columns_first else (rows, columns)
        quarter = width // 4
        frequencies = self.temperature ** -(np.arange(quarter) / quarter)
        angles = np.stack(order, -1).reshape(-1, 2, 1) * frequencies.astype(np.float32)
        angles = angles.reshape(-1, width // 2)
        angles = np.tile(angles, 2) if self.halves else np.repeat(angles, 2, -1)
        return angles.astype(np.float32)

    def turn(self, x: jax.Array, grid: Grid, prefix: int) -> jax.Array:
        """(B, N, heads, width) queries or keys, of which the first ``prefix`` stay as they are."""
        angles = self.angles(grid, x.shape[-1])[:, None]
        patches = x[:, prefix:].astype(jnp.float32)
        if self.halves:
            first, second = jnp.split(patches, 2, -1)
            other = jnp.concatenate([-second, first], -1)
        else:
            pairs = patches.reshape(*patches.shape[:-1], -1, 2)
            other = jnp.concatenate([-pairs[..., 1:], pairs[..., :1]], -1).reshape(patches.shape)
        turned = patches * np.cos(angles) + other * np.sin(angles)
        return jnp.concatenate([x[:, :prefix], turned.astype(x.dtype)], 1)
