"""Which objects a scene gets and where they go, from a row of uniform numbers."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Protocol

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import between, choice
from vision.data.sources.scenes.labels import SceneConstraint
from vision.data.sources.scenes.record import Object
from vision.data.sources.scenes.shapes import inner_radius

_PLACES = 10
PER_OBJECT = 10 + 2 * _PLACES
"""Uniform numbers for one object: ten for its attributes, the rest for ten candidate places."""

_INNER = {shape: inner_radius(shape) for shape in words.SHAPES}


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How objects are put together; see the fields of the same names in ``World``.

    ``nested`` and ``free_sizes`` are decided: the last object goes inside the subject; the
    subject need not be the largest object.

    Attributes:
      pairs, held_out, rotation_deg, overlap: as in ``World``.
      nested: the last object lies inside the subject.
      free_sizes: another object may be larger than the subject.
    """

    pairs: str = "all"
    held_out: tuple[str, ...] = ()
    rotation_deg: float = 30.0
    overlap: float = 0.0
    nested: bool = False
    free_sizes: bool = False


def draw_objects(
    aim: SceneConstraint, free: SceneConstraint, count: int, u: Sequence[float], layout: Layout
) -> tuple[Object, ...]:
    """``count`` objects: the subject as ``aim`` says, the others as ``free`` says.

    ``u`` has at least ``count * PER_OBJECT`` uniform numbers; the attributes of object k depend
    on its own block only.
    """
    blocks = [u[k * PER_OBJECT : (k + 1) * PER_OBJECT] for k in range(count)]
    sizes = _sizes(aim, free, blocks, layout.free_sizes)
    subject_pairs = possible_pairs(aim.shapes, aim.colours, layout.held_out, layout.pairs)
    other_pairs = possible_pairs(
        free.shapes, free.colours, layout.held_out, "seen" if layout.pairs == "seen" else "all"
    )
    turns = (-layout.rotation_deg, layout.rotation_deg)
    objects: list[Object] = []
    for k, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
        constraint = free if k else aim
        shape, colours = choice(other_pairs if k else subject_pairs, block[0])
        layer = int(block[9] * 8)
        inside = layout.nested and 0 < k == count - 1
        room = 0.8 * _INNER[objects[0].shape] * objects[0].size if inside else 0.0
        if room >= 0.07:
            y, x, size = objects[0].y, objects[0].x, min(size, room)
            layer = objects[0].layer + 1
        else:
            quadrant = constraint.quadrants[0] if constraint.quadrants else ""
            y, x = find_place(size, objects, block[10:], layout.overlap, quadrant)
        objects.append(
            Object(
                shape,
                choice(colours, block[1]),
                choice(constraint.variants, block[2]),
                choice(constraint.textures, block[3]),
                size,
                y,
                x,
                between(turns, block[6]),
                layer,
                between((0.07, 0.1), block[7]),
                choice((0.0, 45.0, 90.0, 135.0), block[8]),
            )
        )
    return tuple(objects)


def _sizes(
    aim: SceneConstraint, free: SceneConstraint, blocks: list[Sequence[float]], as_drawn: bool
) -> list[float]:
    """Radii; a crowd has no large things, and the subject gets the largest radius."""
    fitting = words.SIZES[: 3 if len(blocks) < 4 else 2 if len(blocks) < 7 else 1]
    others = tuple(name for name in free.sizes if name in fitting) or free.sizes
    radii = [
        between(words.SIZE_RANGES[choice(others if k or not as_drawn else aim.sizes, b[4])], b[5])
        for k, b in enumerate(blocks)
    ]
    if not as_drawn:
        largest = radii.index(max(radii))
        radii[0], radii[largest] = radii[largest], radii[0]
    return radii


class Round(Protocol):
    """What lies in a circle of radius ``size`` around (``y``, ``x``)."""

    @property
    def size(self) -> float: ...

    @property
    def y(self) -> float: ...

    @property
    def x(self) -> float: ...


def find_place(
    size: float, objects: Sequence[Round], u: Sequence[float], overlap: float, quadrant: str
) -> tuple[float, float]:
    """Centre (y, x) for a new object: the first of the candidate places in ``u`` (20 uniform
    numbers) that keeps the distance to ``objects``, or else the one with most room."""
    margin = min(0.92 * size, 0.5)
    ys = xs = (margin, 1 - margin)
    if quadrant:
        row, column = divmod(words.QUADRANTS.index(quadrant), 2)
        near, far = (min(margin, 0.4), 0.46), (0.54, max(1 - margin, 0.6))
        ys, xs = (far if row else near), (far if column else near)
    best, best_gap = (0.5, 0.5), -math.inf
    for k in range(0, 2 * _PLACES, 2):
        y, x = between(ys, u[k]), between(xs, u[k + 1])
        gap = 0.0
        for other in objects:
            apart = math.sqrt((y - other.y) ** 2 + (x - other.x) ** 2)
            gap = min(gap, apart - (1 - overlap) * (size + other.size))
        if gap >= 0:
            return y, x
        if gap > best_gap:
            best, best_gap = (y, x), gap
    return best


def companion(colour: str, objects: Sequence[Object], u: Sequence[float]) -> Object:
    """A small outlined circle of ``colour`` where the other objects leave room, above them.

    ``u`` has ``PER_OBJECT`` uniform numbers.
    """
    size = words.SIZE_RANGES["small"][0]
    y, x = find_place(size, objects, u[10:], 0.0, "")
    return Object("circle", colour, "outlined", "plain", size, y, x, layer=9)


def draw_clutter(u: Sequence[float]) -> tuple[Object, ...]:
    """One tiny thing for every six uniform numbers, anywhere."""
    return tuple(
        Object(
            choice(words.SHAPES, u[k]),
            choice(words.COLOURS, u[k + 1]),
            size=between((0.025, 0.045), u[k + 2]),
            y=u[k + 3],
            x=u[k + 4],
            rotation_deg=360 * u[k + 5],
        )
        for k in range(0, len(u), 6)
    )


@functools.lru_cache(maxsize=4096)
def possible_pairs(
    shapes: tuple[str, ...], colours: tuple[str, ...], held_out: tuple[str, ...], pairs: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every shape that may be drawn, with its colours; empty where nothing may."""
    result = []
    for shape in shapes:
        allowed = tuple(
            colour
            for colour in colours
            if pairs == "all" or (f"{colour} {shape}" in held_out) == (pairs == "unseen")
        )
        if allowed:
            result.append((shape, allowed))
    return tuple(result)
