"""Learned biases of attention by the offset between two tokens of a grid."""

from __future__ import annotations

import jax
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


def bias_of(table: jax.Array, rows: np.ndarray) -> jax.Array:
    """(heads, N, N) of a table (rows, heads)."""
    return table[rows].transpose(2, 0, 1)
