"""Learned biases of attention by the offset between two tokens of a grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vision.models.posemb import Grid


def offset_rows(grid: Grid, table: Grid) -> np.ndarray:
    """(N, N) int: row of a bias table for query i and key j of a grid of N tokens.

    Args:
      grid: rows and columns of the tokens.
      table: of the largest grid that the bias table is for. It has a row for every offset on
        that grid, (2 rows - 1) (2 columns - 1); a smaller grid uses those in the middle.
    """
    rows, columns = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    down = rows[:, None] - rows[None] + table[0] - 1
    across = columns[:, None] - columns[None] + table[1] - 1
    return down * (2 * table[1] - 1) + across


def class_token_rows(grid: Grid) -> np.ndarray:
    """(1 + N, 1 + N) int: the same for a table of this grid with a class token before the others.

    Three rows follow those of the offsets: class token to others, others to it, and it to itself,
    as in BEiT (Bao et al., 2022).
    """
    count = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    found = np.full((1 + grid[0] * grid[1],) * 2, count + 1)
    found[0] = count
    found[0, 0] = count + 2
    found[1:, 1:] = offset_rows(grid, grid)
    return found


def geometric_places(old: int, new: int) -> np.ndarray:
    """(new, old) weights that resample biases by offset as timm does for BEiT, Swin and MaxViT.

    Linear between places whose distances grow: the old biases stand at offsets 0, 1, 1 + q,
    1 + q + q^2 and so on, with the ratio q at which the last is the new grid's largest offset, so
    that small offsets keep their biases.

    Args:
      old: biases along an axis, 2 n - 1 for n tokens.
      new: the same of the other grid.
    """
    low, high, ratio = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    places = np.concatenate([[0.0], np.cumsum(ratio ** np.arange(old // 2))])
    places = np.concatenate([-places[:0:-1], places])
    wanted = np.arange(new) - (new // 2)
    return np.stack([np.interp(wanted, places, row) for row in np.eye(old)], 1)


def resampled_table(table: jax.Array, old: Grid, new: Grid) -> jax.Array:
    """The bias table (rows, heads) of one grid for another, by ``geometric_places``; float32."""
    table = table.astype(jnp.float32)
    if old == new:
        return table
    sides = [(2 * a - 1, 2 * b - 1) for a, b in zip(old, new, strict=True)]
    down, across = (geometric_places(*pair).astype(np.float32) for pair in sides)
    square = table.reshape(sides[0][0], sides[1][0], -1)
    fitted = jnp.einsum("ia,jb,abh->ijh", down, across, square, precision="highest")
    return fitted.reshape(-1, table.shape[-1])


def bias_of(table: jax.Array, rows: np.ndarray) -> jax.Array:
    """(heads, N, N) of a table (rows, heads)."""
    return table[rows].transpose(2, 0, 1)
