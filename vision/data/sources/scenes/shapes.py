"""Signed distances of the shapes in the unit circle: negative inside, y points down.

Each function takes two new float32 arrays of equal shape and returns the distance to the edge
in the same unit. Only +, -, *, /, sqrt, min and max are used: they are exactly rounded by IEEE
754, so the pixels are the same on every platform. Away from the edge the values are bounds, not
exact distances; rendering needs them near the edge only. The folding of stars follows the
construction that Inigo Quilez describes in "2D distance functions".
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _fold(x: np.ndarray, y: np.ndarray, ny: float, nx: float) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors the points on the positive side of the line with unit normal (ny, nx)."""
    twice = np.maximum(x * nx + y * ny, 0.0) * 2.0
    return x - twice * nx, y - twice * ny


def circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _length(x, y) - 0.88


def pill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _length(np.maximum(np.abs(x) - 0.55, 0.0), y) - 0.44


def crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_length(x, y) - 0.96, 0.74 - _length(x - 0.48, y))


def drop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    along = 0.4615385 * x + 0.8871202 * (y + 1.0)
    side = 0.8871202 * x - 0.4615385 * (y + 1.0)
    return np.where(along < 1.1532563, side, _length(x, y - 0.3) - 0.6)


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(0.8660254 * np.abs(x) - 0.5 * y, y) - 0.5


def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.7


def rhombus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.8741573 * np.abs(x) + 0.4856429 * np.abs(y) - 0.4856429


def hexagon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(0.8660254 * x + 0.5 * y, y) - 0.82


def _tip(along: np.ndarray, across: np.ndarray, inner: tuple[float, float]) -> np.ndarray:
    """Distance to the line from the tip (1, 0) to the inner corner, both in a folded wedge."""
    run, rise = 1.0 - inner[0], inner[1]
    length = (run * run + rise * rise) ** 0.5
    return along * (rise / length) + across * (run / length) - rise / length


def spark(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return _tip(np.maximum(x, y), np.minimum(x, y), (0.26, 0.26))


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = _fold(np.abs(x), y, 0.5877853, 0.8090170)
    x, y = _fold(x, y, 0.5877853, -0.8090170)
    return _tip(-y, np.abs(x), (0.3641, 0.2645))


def burst(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    along, across = _fold(np.maximum(x, y), np.minimum(x, y), 0.9238795, -0.3826834)
    return _tip(along, np.abs(across), (0.5174, 0.2143))


def flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = _fold(np.abs(x), np.abs(y), 0.8660254, -0.5)
    x, y = x - 0.62, np.abs(y)
    return np.where(x > 0, _length(x, y) - 0.3579572, -_length(x, 0.3579572 - y))


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.92, np.minimum(x, y) - 0.32)


def tee(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    top = np.maximum(x - 0.72, np.abs(y + 0.4) - 0.28)
    return np.minimum(top, np.maximum(x - 0.3, np.abs(y - 0.13) - 0.81))


def elbow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    upright = np.maximum(np.abs(x + 0.32) - 0.3, np.abs(y) - 0.78)
    return np.minimum(upright, np.maximum(np.abs(x) - 0.62, np.abs(y - 0.48) - 0.3))


def arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    head = np.maximum(0.7474093 * x - 0.6643638 * (y + 1.0), y + 0.1)
    return np.minimum(head, np.maximum(x - 0.29, np.abs(y - 0.175) - 0.725))


DISTANCES: MappingProxyType[str, Distance] = MappingProxyType(
    {
        "circle": circle,
        "pill": pill,
        "crescent": crescent,
        "drop": drop,
        "triangle": triangle,
        "square": square,
        "rhombus": rhombus,
        "hexagon": hexagon,
        "spark": spark,
        "star": star,
        "burst": burst,
        "flower": flower,
        "cross": cross,
        "tee": tee,
        "elbow": elbow,
        "arrow": arrow,
    }
)
"""Signed distance of every shape by name."""


def inner_radius(shape: str) -> float:
    """Radius of the largest circle about the origin inside ``shape``; 0 where there is none."""
    zero = np.zeros((1, 1), np.float32)
    return max(0.0, -float(DISTANCES[shape](zero, zero)[0, 0]))
