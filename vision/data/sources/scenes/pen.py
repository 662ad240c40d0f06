"""Scenes as line drawings: every outline as strokes of points, as a pen would draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from vision.data.sources.scenes.record import Scene, cos_sin
from vision.data.sources.scenes.vocabulary import SHAPES

Point = tuple[float, float]


def _arc(centre: Point, radius: float, start_deg: float, end_deg: float, count: int) -> list[Point]:
    """``count`` points (y, x) on an arc; 0 degrees points right and 90 degrees down."""
    points = []
    for k in range(count):
        angle = math.radians(start_deg + (end_deg - start_deg) * k / (count - 1))
        points.append((centre[0] + radius * math.sin(angle), centre[1] + radius * math.cos(angle)))
    return points


def _quarters(centre: Point, radius: float, start_deg: float, end_deg: float) -> list[list[Point]]:
    """An arc as strokes of at most 90 degrees, nine points each."""
    parts = max(1, round(abs(end_deg - start_deg) / 90))
    step = (end_deg - start_deg) / parts
    return [
        _arc(centre, radius, start_deg + k * step, start_deg + (k + 1) * step, 9)
        for k in range(parts)
    ]


def _sides(corners: list[Point]) -> list[list[Point]]:
    """One stroke of two points for every side of a closed polygon."""
    return [[a, b] for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]


def _rays(radii: Sequence[float], first_deg: float) -> list[list[Point]]:
    """Sides of the polygon with corners at equal angles and the given radii."""
    step = 360 / len(radii)
    return _sides([_arc((0, 0), r, first_deg + k * step, 0, 2)[0] for k, r in enumerate(radii)])


def _mirrored(right: list[Point]) -> list[list[Point]]:
    """Sides of the polygon whose right half, from top to bottom, has these corners."""
    return _sides(right + [(y, -x) for y, x in reversed(right) if x])


def _crescent() -> list[list[Point]]:
    outer = math.degrees(math.atan2(0.7246818, 0.6296))
    inner = math.degrees(math.atan2(0.7246818, 0.1496))
    return _quarters((0, 0), 0.96, outer, 360 - outer) + _quarters(
        (0, 0.48), 0.74, 360 - inner, inner
    )


def _drop() -> list[list[Point]]:
    tangent = math.degrees(math.asin(-0.4615385))
    right, left = (0.0230769, 0.5322721), (0.0230769, -0.5322721)
    round_part = _quarters((0.3, 0), 0.6, tangent, 180 - tangent)
    return [[(-1, 0), right], *round_part, [left, (-1, 0)]]


def _flower() -> list[list[Point]]:
    petals = []
    for turn in range(0, 360, 60):
        y, x = _arc((0, 0), 0.62, turn, 0, 2)[0]
        petals += _quarters((y, x), 0.3579572, turn - 90, turn + 90)
    return petals


_PILL_TOP, _PILL_BOTTOM = [[(-0.44, -0.55), (-0.44, 0.55)]], [[(0.44, 0.55), (0.44, -0.55)]]

OUTLINES: MappingProxyType[str, list[list[Point]]] = MappingProxyType(
    {
        "circle": _quarters((0, 0), 0.88, 0, 360),
        "pill": _PILL_TOP
        + _quarters((0, 0.55), 0.44, -90, 90)
        + _PILL_BOTTOM
        + _quarters((0, -0.55), 0.44, 90, 270),
        "crescent": _crescent(),
        "drop": _drop(),
        "triangle": _rays([1, 1, 1], -90),
        "square": _sides([(-0.7, -0.7), (-0.7, 0.7), (0.7, 0.7), (0.7, -0.7)]),
        "rhombus": _sides([(-1, 0), (0, 0.5555556), (1, 0), (0, -0.5555556)]),
        "hexagon": _rays([0.82 / math.cos(math.pi / 6)] * 6, 0),
        "spark": _rays([1, math.hypot(0.26, 0.26)] * 4, 0),
        "star": _rays([1, math.hypot(0.3641, 0.2645)] * 5, -90),
        "burst": _rays([1, math.hypot(0.5174, 0.2143)] * 8, 0),
        "flower": _flower(),
        "cross": _mirrored(
            [(-0.92, 0.32), (-0.32, 0.32), (-0.32, 0.92), (0.32, 0.92), (0.32, 0.32), (0.92, 0.32)]
        ),
        "tee": _mirrored([(-0.68, 0.72), (-0.12, 0.72), (-0.12, 0.3), (0.94, 0.3)]),
        "elbow": _sides(
            [
                (-0.78, -0.62),
                (-0.78, -0.02),
                (0.18, -0.02),
                (0.18, 0.62),
                (0.78, 0.62),
                (0.78, -0.62),
            ]
        ),
        "arrow": _mirrored([(-1, 0), (-0.1, 0.8), (-0.1, 0.29), (0.9, 0.29)]),
    }
)
"""Outline of every shape in the unit circle: strokes of points (y, x), y down, end to end."""


MAX_POINTS = max(sum(len(stroke) for stroke in OUTLINES[shape]) for shape in SHAPES)
"""Most points of any outline."""


def strokes(scene: Scene) -> list[list[np.ndarray]]:
    """The outlines of a scene's objects as the camera sees them.

    Returns:
      For every object a list of strokes, float32[P, 2]: y and x as shares of the image.
    """
    drawn = []
    for thing in scene.placed():
        cosine, sine = cos_sin(thing.rotation_deg)
        drawn.append(
            [
                np.array(
                    [
                        (
                            thing.y + thing.size * (cosine * y + sine * x),
                            thing.x + thing.size * (cosine * x - sine * y),
                        )
                        for y, x in stroke
                    ],
                    np.float32,
                )
                for stroke in OUTLINES[thing.shape]
            ]
        )
    return drawn


def stroke_array(things: list[list[np.ndarray]], max_points: int) -> np.ndarray:
    """Strokes as one table, float32[max_points, 4]: y, x, 1 where the pen stays down until the
    next point and 0 at the end of a stroke, number of the object; rows of -1 follow.

    Points beyond ``max_points`` raise ``ValueError``.
    """
    rows = [
        (y, x, float(k + 1 < len(stroke)), float(number))
        for number, drawn in enumerate(things)
        for stroke in drawn
        for k, (y, x) in enumerate(stroke)
    ]
    if len(rows) > max_points:
        raise ValueError(f"max_points={max_points}: the drawing has {len(rows)} points")
    table = np.full((max_points, 4), -1, np.float32)
    if rows:
        table[: len(rows)] = rows
    return table


def draw_strokes(things: list[list[np.ndarray]], size: int, width_px: float = 1.5) -> np.ndarray:
    """Strokes as black lines on white, uint8[size, size]."""
    y, x = (np.arange(size, dtype=np.float32) + 0.5)[:, None], np.arange(size) + np.float32(0.5)
    nearest = np.full((size, size), np.inf, np.float32)
    for stroke in (stroke for drawn in things for stroke in drawn):
        for (y0, x0), (y1, x1) in zip(stroke * size, stroke[1:] * size, strict=False):
            dy, dx = y1 - y0, x1 - x0
            along = ((y - y0) * dy + (x - x0) * dx) / max(dy * dy + dx * dx, 1e-6)
            along = np.clip(along, 0, 1)
            gap_y, gap_x = y - y0 - along * dy, x - x0 - along * dx
            nearest = np.minimum(nearest, gap_y * gap_y + gap_x * gap_x)
    ink = np.clip(width_px / 2 + 0.5 - np.sqrt(nearest), 0, 1)
    return (255.5 - 255 * ink).astype(np.uint8)
