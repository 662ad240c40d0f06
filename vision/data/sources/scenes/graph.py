"""The scene graph: which relations hold between two objects, as the camera sees them."""

from __future__ import annotations

import math

import numpy as np

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.record import Object, Scene
from vision.data.sources.scenes.shapes import inner_radius

RELATIONS = (
    *("left of", "above", "inside", "in front of"),
    *("larger than", "same colour", "same shape"),
)
"""Relation names in the order of ``relations``; right of, below, behind and smaller than are the
same relations read backwards."""

_INNER = {shape: inner_radius(shape) for shape in words.SHAPES}
_APART = 0.06
"""Least distance of centres, as a share of the image, at which a side is called."""


def holds(name: str, first: Object, second: Object, order: tuple[int, int] = (0, 0)) -> bool:
    """Whether ``first`` stands in relation ``name`` to ``second``.

    ``order`` holds the ranks of the two in the drawing order; only ``in front of`` reads it.

    Raises:
      ValueError: a name that is not in ``RELATIONS``.
    """
    if name == "left of":
        return first.x < second.x - _APART
    if name == "above":
        return first.y < second.y - _APART
    if name == "larger than":
        return first.size > 1.15 * second.size
    if name == "same colour":
        return first.colour == second.colour
    if name == "same shape":
        return first.shape == second.shape
    distance = math.sqrt((first.y - second.y) ** 2 + (first.x - second.x) ** 2)
    if name == "inside":
        return distance + first.size <= _INNER[second.shape] * second.size
    if name == "in front of":
        return distance < 0.8 * (first.size + second.size) and order[0] > order[1]
    raise ValueError(f"relation={name!r}; valid values: {', '.join(RELATIONS)}")


def relations(scene: Scene) -> np.ndarray:
    """All relations, bool[K, K, len(RELATIONS)]: entry (a, b, r) says that ``objects[a]`` stands
    in relation r to ``objects[b]``; the diagonal is false."""
    placed = scene.placed()
    count = len(placed)
    rank = drawing_order(scene)
    table = np.zeros((count, count, len(RELATIONS)), bool)
    for a in range(count):
        for b in range(count):
            if a != b:
                order = (rank[a], rank[b])
                table[a, b] = [holds(name, placed[a], placed[b], order) for name in RELATIONS]
    return table


def drawing_order(scene: Scene) -> list[int]:
    """Rank of every object in the order of drawing; a higher rank covers a lower one."""
    order = sorted(range(len(scene.objects)), key=lambda k: scene.objects[k].layer)
    rank = [0] * len(order)
    for place, k in enumerate(order):
        rank[k] = place
    return rank
