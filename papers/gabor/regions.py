"""Proposals of regions at fixed places and sizes, and what a map says of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def proposals(sides: Sequence[float]) -> np.ndarray:
    """float32 (R, 4): top, left, bottom, right of squares, shares of the image.

    Squares of every side, evenly spread from edge to edge, neighbours half a side apart or less.
    """
    rows = []
    for side in sides:
        count = int(np.ceil((1 - side) / (side / 2) - 1e-6)) + 1
        starts = np.linspace(0, 1 - side, count)
        rows += [(y, x, y + side, x + side) for y in starts for x in starts]
    return np.array(rows, np.float32)


def shares_of_cells(boxes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """float32 (R, h, w), each of sum 1: the parts of a box that fall into the cells of a grid."""

    def parts(first: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
        edges = np.arange(count + 1) / count
        low, high = np.maximum(first[:, None], edges[:-1]), np.minimum(last[:, None], edges[1:])
        return np.maximum(high - low, 0)

    down = parts(boxes[:, 0], boxes[:, 2], grid[0])
    across = parts(boxes[:, 1], boxes[:, 3], grid[1])
    area = down[:, :, None] * across[:, None]
    return (area / area.sum((1, 2), keepdims=True)).astype(np.float32)
