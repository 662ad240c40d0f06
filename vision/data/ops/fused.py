"""Decoding and cropping in one op, which looks at the header first."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.config.ranges import checked
from vision.data.decode import (
    MAX_PIXELS,
    PixelLimit,
    decode_plain_jpeg,
    plain_jpeg_size,
)
from vision.data.ops.base import Example, noted
from vision.data.ops.carry import carry_box
from vision.data.ops.geometry import RandomResizedCrop, crop
from vision.data.ops.resizing import resize
from vision.data.ops.values import Decode


@dataclasses.dataclass(frozen=True)
@checked
class DecodeCrop:
    """``Decode`` and ``RandomResizedCrop`` with the same draws and notes, faster on large JPEGs.

    The box is drawn from the size in the header. Where it is at least 2, 4 or 8 times as high
    and wide as what is asked for, the JPEG is decoded to that fraction of its size (libjpeg's
    scaled DCT, an average over blocks) and the box, to the nearest decoded pixel (at most half
    a pixel of the result), resized from there; on one side at least less than a factor of 2 is
    left, where even methods without antialiasing do little harm. Everything else gives exactly
    the pixels of the two ops. The whole file is still read, strictly.

    The fastest of all is ``DecodeCrop(RandomResizedCrop(224, method="cv2_linear"))``.

    Attributes:
      crop: what to cut out; its ``key`` is the feature to decode.
      mode: ``rgb`` or ``grey``.
      max_pixels: larger images are refused by their header.
      strict: refuse JPEGs that decode only with warnings; without it none is decoded scaled.
    """

    crop: RandomResizedCrop
    mode: Literal["rgb", "grey"] = "rgb"
    max_pixels: PixelLimit = MAX_PIXELS
    strict: bool = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        key = self.crop.key
        data = example.get(key)
        size = None
        if self.strict and isinstance(data, bytes):
            size = plain_jpeg_size(data, self.max_pixels)
        if size is None:
            decode = Decode(key, self.mode, self.max_pixels, self.strict)
            return self.crop(decode(example, rng), rng)
        assert isinstance(data, bytes)
        box = self.crop.draw(*size, rng)
        to = self.crop.to
        shrink = next((s for s in (8, 4, 2) if box[2] >= s * to[0] and box[3] >= s * to[1]), 1)
        image = decode_plain_jpeg(data, size, self.mode, shrink)
        cut = crop(image, *_shrunk(box, shrink))
        example = carry_box(example, key, box, to)
        return noted(
            {**example, key: resize(cut, *to, self.crop.method)},
            "RandomResizedCrop",
            size=size,
            box=box,
            to=to,
        )


def _shrunk(box: tuple[int, int, int, int], by: int) -> tuple[int, int, int, int]:
    if by == 1:
        return box
    top, left, height, width = box
    first, start = round(top / by), round(left / by)
    return first, start, round((top + height) / by) - first, round((left + width) / by) - start
