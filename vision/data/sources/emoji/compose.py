"""Drawings on a ground of ``scenes``, with masks and boxes of what can be seen of each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vision.data.sources.emoji.packed import Drawing, pixels
from vision.data.sources.scenes.record import Scene
from vision.data.sources.scenes.renderer import Rendering, render


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A drawing in a picture.

    Attributes:
      drawing: which.
      size: half its side, a share of the short side of the image.
      y, x: centre, share of height and width, 0 at the top left.
      rotation_deg: counter-clockwise turn in degrees.
    """

    drawing: Drawing
    size: float
    y: float = 0.5
    x: float = 0.5
    rotation_deg: float = 0.0


def compose(ground: Scene | None, things: Sequence[Placed], shape: tuple[int, int]) -> Rendering:
    """Puts drawings on a ground, later ones over earlier ones.

    A pixel belongs to the last drawing that covers at least half of it. Drawings are turned and
    brought to size with PIL's filters, which count in whole numbers or doubles.

    Args:
      ground: a scene without objects; None for white.
      things: at most 255.
      shape: height and width in pixels, at least 8.
    """
    height, width = shape
    if ground is None:
        image = np.full((height, width, 3), 255, np.uint8)
    else:
        image = render(ground, shape).image
    instances = np.zeros(shape, np.uint8)
    extents = np.zeros(len(things), np.int64)
    for k, thing in enumerate(things):
        side = max(round(2 * thing.size * min(shape)), 1)
        drawn = _turned(thing.drawing, side, thing.rotation_deg)
        top = round(thing.y * height - drawn.shape[0] / 2)
        left = round(thing.x * width - drawn.shape[1] / 2)
        y0, y1 = max(top, 0), min(top + drawn.shape[0], height)
        x0, x1 = max(left, 0), min(left + drawn.shape[1], width)
        if y0 >= y1 or x0 >= x1:
            continue
        part = drawn[y0 - top : y1 - top, x0 - left : x1 - left]
        cover = part[:, :, 3:].astype(np.int32)
        region = image[y0:y1, x0:x1]
        mixed = part[:, :, :3] * cover + region * (255 - cover)
        region[:] = (mixed + 127) // 255
        covered = part[:, :, 3] >= 128
        instances[y0:y1, x0:x1][covered] = k + 1
        extents[k] = np.count_nonzero(covered)
    return Rendering(image, instances, extents)


@functools.lru_cache(maxsize=4096)
def _turned(drawing: Drawing, side: int, rotation_deg: float) -> np.ndarray:
    """A drawing of ``side`` pixels, turned; uint8 [h, w, 4]."""
    image = Image.fromarray(pixels(drawing))
    if side != image.width:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    if rotation_deg:
        image = image.rotate(rotation_deg, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(image)
