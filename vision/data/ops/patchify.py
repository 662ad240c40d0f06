"""Images of any shape as patches, for towers that read them so: SigLIP2's NaFlex."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.ops.base import Example, image_of, noted
from vision.data.ops.carry import carry_box
from vision.data.ops.resizing import Method, resize


def patches_within(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """(rows, columns) of whole patches to which an image is resized, at its aspect ratio.

    By the search of SigLIP2's processor: the largest factor, found by halving an interval down to
    1e-5, at which both sides, rounded up to whole patches, have ``most`` of them together.
    """
    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if math.prod(_counts((height, width), middle, patch)) <= most:
            low = middle
        else:
            high = middle
    rows, columns = _counts((height, width), low, patch)
    return rows, columns


def _counts(sides: tuple[int, int], factor: float, patch: int) -> list[int]:
    return [max(1, math.ceil(side * factor / patch)) for side in sides]


@dataclasses.dataclass(frozen=True)
@checked
class ResizeToPatches:
    """Resizes to the largest whole number of patches, at nearly the same aspect ratio.

    Attributes:
      patch: sides of a patch in pixels.
      most: number of patches.
      method: see ``vision.data.ops.resizing``.
      key: the image feature.
    """

    patch: Positive[int] = 16
    most: Positive[int] = 256
    method: Method = "bilinear"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "ResizeToPatches")
        rows, columns = image.shape[:2]
        counts = patches_within(rows, columns, self.patch, self.most)
        to = (counts[0] * self.patch, counts[1] * self.patch)
        out = resize(image, *to, self.method)
        example = carry_box(example, self.key, (0, 0, rows, columns), to)
        return noted({**example, self.key: out}, "ResizeToPatches", size=(rows, columns), to=to)


@dataclasses.dataclass(frozen=True)
@checked
class Patchify:
    """(h, w, C) floating-point pixels as (``most``, patch * patch * C + 2) float32.

    Patches are in order row by row, each laid flat (rows, columns, channels), and then zeros. The
    last two numbers of every one are the rows and columns of the image's grid of patches.

    Attributes:
      patch: sides of a patch in pixels, which divide those of the image.
      most: number of patches.
      key: the image feature.
    """

    patch: Positive[int] = 16
    most: Positive[int] = 256
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Patchify")
        if not np.issubdtype(image.dtype, np.floating):
            raise ValueError("Patchify: pixels are uint8 still; put ValueRange before Patchify")
        height, width, channels = image.shape
        rows, columns = height // self.patch, width // self.patch
        if height % self.patch or width % self.patch or not 0 < rows * columns <= self.most:
            raise ValueError(
                f"Patchify: an image of {height} x {width} is not up to {self.most} patches of "
                f"{self.patch} x {self.patch}; put ResizeToPatches of the same numbers before it"
            )
        cut = image.reshape(rows, self.patch, columns, self.patch, channels).swapaxes(1, 2)
        out = np.zeros((self.most, self.patch**2 * channels + 2), np.float32)
        out[: rows * columns, :-2] = cut.reshape(rows * columns, -1)
        out[:, -2:] = rows, columns
        return {**example, self.key: out}
