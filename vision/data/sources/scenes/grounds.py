"""The patterns behind the objects: periodic tiles, made once per kind and image size.

Patterns live in the unit square of the short side, so a larger image shows the same ground in
more detail. They are muted, so that objects in the palette's colours stand out.
"""

from __future__ import annotations

import functools

import numpy as np

from vision.data.sources.scenes.draws import uniforms


def _lattice(name: str, rows: int, columns: int) -> np.ndarray:
    """Random numbers in [0, 1), float32[rows, columns], the same for every image size."""
    values = uniforms(0, "grounds", 0, name, rows * columns)
    return values.reshape(rows, columns).astype(np.float32)


def smooth_noise(lattice: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Periodic value noise: ``lattice`` float32[rows, columns] interpolated at (y, x).

    ``y`` [H] and ``x`` [W] are in periods; the result is float32[H, W].
    """
    rows, columns = lattice.shape

    def weights(at: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = at * np.float32(cells)
        low = np.floor(at)
        part = (at - low).astype(np.float32)
        first = low.astype(np.int64) % cells
        return first, (first + 1) % cells, part * part * (3 - 2 * part)

    y0, y1, ty = weights(y, rows)
    x0, x1, tx = weights(x, columns)
    upper = lattice[y0][:, x0] * (1 - tx) + lattice[y0][:, x1] * tx
    lower = lattice[y1][:, x0] * (1 - tx) + lattice[y1][:, x1] * tx
    return upper * (1 - ty[:, None]) + lower * ty[:, None]


def _mix(amount: np.ndarray, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """float32[3, H, W] between two RGB colours; ``amount`` 0..1."""
    first, second = (np.array(c, np.float32)[:, None, None] for c in (low, high))
    return first + np.clip(amount, 0, 1)[None] * (second - first)


def _line(at: np.ndarray, width: float, pixel: float) -> np.ndarray:
    """1 on lines at whole numbers of ``at``, 0 elsewhere, with an edge of one ``pixel``."""
    away = np.abs(at - np.floor(at + 0.5))
    return np.clip((width - away) / max(pixel, 1e-6) + 0.5, 0, 1).astype(np.float32)


def _pattern(kind: str, side: int) -> np.ndarray:
    at = ((np.arange(side) + 0.5) / side).astype(np.float32)
    y, x = at[:, None], at[None, :]
    pixel = 1.0 / side

    def noise(name: str, rows: int, columns: int) -> np.ndarray:
        return smooth_noise(_lattice(f"{kind}/{name}", rows, columns), at, at)

    if kind == "paper":
        return _mix(
            0.5 * noise("a", 4, 4) + 0.5 * noise("b", 24, 24), (186, 184, 178), (206, 204, 198)
        )
    if kind == "sky":
        cloud = 0.6 * noise("a", 3, 2) + 0.3 * noise("b", 7, 5) + 0.1 * noise("c", 15, 11)
        return _mix((cloud - 0.38) * 3.2, (138, 176, 208), (216, 226, 232))
    if kind == "sand":
        grain = 0.35 * noise("a", 5, 4) + 0.65 * noise("b", 48, 48)
        return _mix(grain, (176, 156, 116), (222, 206, 168))
    if kind == "grass":
        blades = 0.3 * noise("a", 4, 4) + 0.7 * noise("b", 9, 40)
        return _mix((blades - 0.15) * 1.4, (84, 112, 70), (154, 176, 116))
    if kind == "water":
        swell = (y * 6 + 0.35 * noise("a", 5, 4)) % 1.0
        crest = np.abs(swell * 2 - 1)
        return _mix(0.75 * crest + 0.3 * noise("b", 14, 8), (84, 122, 146), (148, 180, 196))
    if kind == "brick":
        row = np.floor(y * 6)
        seam = np.maximum(
            _line(y * 6, 0.09, 6 * pixel), _line(x * 3 + 0.5 * (row % 2), 0.045, 3 * pixel)
        )
        tone = _lattice("brick/tone", 6, 6)
        cell = np.floor(x * 3 + 0.5 * (row % 2)).astype(np.int64) % 3
        colour = _mix(tone[row.astype(np.int64), cell], (140, 100, 88), (168, 126, 110))
        return colour + seam[None] * (_mix(0 * seam, (190, 182, 172), (0, 0, 0)) - colour)
    if kind == "wood":
        board = np.floor(x * 4).astype(np.int64) % 4
        grain = 0.6 * noise("a", 3, 36) + 0.4 * noise("b", 6, 64)
        shade = 0.7 * grain + 0.3 * _lattice("wood/board", 1, 4)[0][board]
        colour = _mix(shade, (148, 116, 84), (198, 164, 124))
        return colour * (1 - 0.4 * _line(x * 4, 0.03, 4 * pixel))
    if kind == "night":
        sky = _mix(0.7 * noise("a", 3, 3), (30, 34, 56), (62, 62, 98))
        stars = np.zeros((side, side), np.float32)
        for v, u, light in _lattice("night/stars", 26, 3):
            dy, dx = (np.abs(y - v) * side, np.abs(x - u) * side)
            radius = (0.5 + light) * max(side / 128, 0.5)
            stars = np.maximum(stars, np.clip(radius + 0.5 - np.sqrt(dy * dy + dx * dx), 0, 1))
        return sky + stars[None] * (220 - sky)
    if kind == "stone":
        rough = 0.5 * noise("a", 5, 5) + 0.3 * noise("b", 11, 11) + 0.2 * noise("c", 32, 32)
        return _mix((rough - 0.2) * 1.6, (92, 94, 98), (154, 156, 158))
    if kind == "tile":
        even = (np.floor(y * 4) + np.floor(x * 4)) % 2
        seam = np.maximum(_line(y * 4, 0.04, 4 * pixel), _line(x * 4, 0.04, 4 * pixel))
        colour = _mix(even + 0.15 * noise("a", 8, 8), (158, 148, 150), (204, 198, 192))
        return colour * (1 - 0.22 * seam)
    raise ValueError(f"no pattern for background {kind!r}")


@functools.lru_cache(maxsize=64)
def tile(kind: str, height: int, width: int) -> np.ndarray:
    """The ground of ``kind``, read-only uint8[3, height + side, width + side].

    ``side`` is the shorter of height and width and the period of the pattern: a window of the
    image's size may start at any pixel of the first ``side`` rows and columns.
    """
    side = min(height, width)
    unit = np.clip(_pattern(kind, side) + 0.5, 0, 255).astype(np.uint8)
    repeats = (1, -(-(height + side) // side), -(-(width + side) // side))
    full = np.tile(unit, repeats)[:, : height + side, : width + side].copy()
    full.flags.writeable = False
    return full
