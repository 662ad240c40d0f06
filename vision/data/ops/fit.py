"""Resizing at a constant aspect ratio, into a frame or over it, and padding in the middle.

``ResizeInto(size), CenterPad(size)`` keeps all of a picture within borders of one colour.
``ResizeInto(size, cover=True), CenterCrop(size)`` is ``Resize`` and ``CenterCrop`` for frames that
are not square.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.ops.base import Example, image_of, noted
from vision.data.ops.carry import carry_box
from vision.data.ops.resizing import Method, check_made, resize


@dataclasses.dataclass(frozen=True)
@checked
class ResizeInto:
    """The largest size at which the image lies within a frame, or the smallest that covers it.

    Both sides are divided by the same number and rounded, as in timm's ``ResizeKeepRatio``.

    Attributes:
      size: (height, width) of the frame.
      cover: cover the frame instead of lying within it.
      method: see ``vision.data.ops.resizing``.
      key: the image feature.
    """

    size: tuple[Positive[int], Positive[int]]
    cover: bool = False
    method: Method = "bilinear"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "ResizeInto")
        rows, columns = image.shape[:2]
        ratios = (rows / self.size[0], columns / self.size[1])
        ratio = min(ratios) if self.cover else max(ratios)
        to = (max(1, round(rows / ratio)), max(1, round(columns / ratio)))
        check_made((rows, columns), to, self.size, "ResizeInto")
        out = resize(image, *to, self.method)
        example = carry_box(example, self.key, (0, 0, rows, columns), to)
        return noted({**example, self.key: out}, "ResizeInto", size=(rows, columns), to=to)


@dataclasses.dataclass(frozen=True)
@checked
class CenterPad:
    """Borders around images that are smaller than ``size``; longer sides stay as they are.

    Of an odd number of rows or columns the last side gets one more, as in timm and torchvision.

    Attributes:
      size: (height, width).
      fill: colour of the borders, one number per channel in the range that the image has here.
      key: the image feature.
    """

    size: tuple[Positive[int], Positive[int]]
    fill: tuple[float, ...] = (0, 0, 0)
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "CenterPad")
        rows, columns, channels = image.shape
        if channels != len(self.fill):
            raise ValueError(
                f"CenterPad: {self.key!r} has {channels} channels, fill has {len(self.fill)}"
            )
        to = (max(rows, self.size[0]), max(columns, self.size[1]))
        top, left = (to[0] - rows) // 2, (to[1] - columns) // 2
        out = np.empty((*to, channels), image.dtype)
        out[:] = self.fill
        out[top : top + rows, left : left + columns] = image
        box = (-top, -left, *to)
        example = carry_box(example, self.key, box, to)
        return noted({**example, self.key: out}, "CenterPad", size=(rows, columns), box=box, to=to)
