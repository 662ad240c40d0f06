"""Wallpapers of emoji: drawn on a torus, so that they tile, or cut out of a larger one."""

from __future__ import annotations

import functools

import numpy as np

from vision.data.sources.arrays import Arrays
from vision.data.sources.emoji import GROUPS, HOUSES, index, pixels

SIDES_PX = (12, 16)
MOTIF_AREA_PX = 170  # of ground per emoji


@functools.cache
def motifs(group: str, houses: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """By size, drawings of a group as float32 (N, side, side, 4) in 0..1, alpha last."""
    signs = index()
    x = np.stack(
        [
            pixels(drawing).astype(np.float32) / 255
            for drawing in signs.drawings
            if GROUPS[signs.emoji[drawing.emoji].group] == group and HOUSES[drawing.house] in houses
        ]
    )
    x[..., :3] *= x[..., 3:]  # colours of what is seen through do not count in a mean
    made = []
    for side in SIDES_PX:
        part = x.reshape(len(x), side, x.shape[1] // side, side, x.shape[2] // side, 4)
        made.append(part.mean((2, 4)))
    return tuple(made)


def torus(motifs: tuple[np.ndarray, ...], side: int, rng: np.random.Generator) -> np.ndarray:
    """A wallpaper float32 (side, side, 3) in 0..1 whose edges meet."""
    image = np.broadcast_to(rng.uniform(0.3, 1, 3).astype(np.float32), (side, side, 3)).copy()
    for _ in range(side * side // MOTIF_AREA_PX):
        of_size = motifs[int(rng.integers(len(motifs)))]
        motif = of_size[int(rng.integers(len(of_size)))]
        rows, columns = ((int(rng.integers(side)) + np.arange(len(motif))) % side for _ in range(2))
        at = np.ix_(rows, columns)
        image[at] = image[at] * (1 - motif[..., 3:]) + motif[..., :3]
    return image


def wallpapers(split: str, num_examples: int, side: int = 24, group: str = "food-drink") -> Arrays:
    """``image`` uint8 (side, side, 3) and ``label``, 1 for those that tile, every other one.

    Others are cut out of one of twice the side, of as many motifs per area: only their edges tell.

    Args:
      split: ``train``, by two houses; ``test``, by the third.
      num_examples: number of wallpapers.
      side: in pixels.
      group: of emoji.
    """
    houses = ("noto", "twemoji") if split == "train" else ("fluent",)
    known = motifs(group, houses)
    rng = np.random.default_rng([len(split), side])
    label = np.arange(num_examples, dtype=np.int32) % 2
    image = np.empty((num_examples, side, side, 3), np.uint8)
    for i, tiles in enumerate(label):
        made = torus(known, side if tiles else 2 * side, rng)
        y, x = (0, 0) if tiles else rng.integers(0, side, 2)
        image[i] = np.round(255 * made[y : y + side, x : x + side])
    return Arrays({"image": image, "label": label}, f"{split} wallpapers", ("cut", "tiles"))
