"""Resampling of biases by offset, (2 rows - 1, 2 columns - 1, heads), to another grid or window."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vision.models.relative_bias import geometric_places


def fit_biases_geometrically(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As timm does for BEiT, Swin and MaxViT: linear between places whose distances grow."""
    return _by_axes(table, shape, geometric_places)


def fit_biases_linearly(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As transformers does for BEiT: torch's ``interpolate(mode="bilinear")``, not antialiased."""
    return _by_axes(table, shape, _linear)


def fit_square_table(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The same as ``fit_biases_geometrically`` for tables (rows, heads) of square windows."""
    old, new = (math.isqrt(rows) for rows in (table.shape[0], shape[0]))
    if old * old != table.shape[0] or table.shape[1] != shape[1]:
        raise ValueError(f"a bias table of shape {table.shape} cannot become {shape}")
    square = table.reshape(old, old, -1)
    return fit_biases_geometrically(square, (new, new, shape[1])).reshape(shape)


def _by_axes(
    table: np.ndarray, shape: tuple[int, ...], weights_of: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    if table.shape[2:] != shape[2:]:
        raise ValueError(f"biases of shape {table.shape} cannot become {shape}")
    if table.shape == shape:
        return table
    found = table.astype(np.float64)
    for axis in (0, 1):
        weights = weights_of(table.shape[axis], shape[axis])
        found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
    return found.astype(np.float32)


def _linear(old: int, new: int) -> np.ndarray:
    """(new, old) weights."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old)))
