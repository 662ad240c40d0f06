"""Positions of patches on a grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]


def sincos2d(grid: Grid, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed sine and cosine position embedding of two axes.

    The four quarters of the channels are sin(x f), cos(x f), sin(y f), cos(y f) with x the column,
    y the row, and frequencies f = temperature ** -(i / quarter), i = 0 .. quarter - 1. Chen et
    al., An Empirical Study of Training Self-Supervised Vision Transformers (MoCo v3), 2021.
    (big_vision spaces the same range with i / (quarter - 1).)

    Args:
      grid: rows and columns.
      width: number of channels, a multiple of 4.
      temperature: the longest wavelength is nearly 2 pi times this, in patches.

    Returns:
      (rows, columns, width) float32.
    """
    if width % 4:
        raise ValueError(f"sincos2d positions need a width divisible by 4, not {width}")
    quarter = width // 4
    frequencies = temperature ** -(np.arange(quarter) / quarter)
    y, x = np.mgrid[: grid[0], : grid[1]][..., None] * frequencies
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], -1).astype(np.float32)


def resample_posemb(pos: jax.Array, old_grid: Grid, new_grid: Grid) -> jax.Array:
    """A learned position embedding for another grid: bicubic and antialiased, as timm does.

    Args:
      pos: (*old_grid, D) or (rows * columns, D), row by row, without prefix tokens.
      old_grid: rows and columns that ``pos`` was made for.
      new_grid: rows and columns of the result.

    Returns:
      (*new_grid, D) in the dtype of ``pos``; the same values where the grids are equal.
    """
    if pos.size != old_grid[0] * old_grid[1] * pos.shape[-1]:
        raise ValueError(
            f"position embedding of shape {pos.shape} does not hold the {old_grid[0]} x "
            f"{old_grid[1]} positions of its grid; strip prefix tokens first"
        )
    pos = pos.reshape(*old_grid, pos.shape[-1])
    if old_grid == new_grid:
        return pos
    resized = jax.image.resize(
        pos.astype(jnp.float32), (*new_grid, pos.shape[-1]), method="cubic", antialias=True
    )
    return resized.astype(pos.dtype)
