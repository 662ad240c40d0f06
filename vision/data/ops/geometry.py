"""Resizing, cropping and flipping.

Resizing is Pillow's unless ``method`` names another library (``vision.data.ops.resizing``).
Crops are cut first and resized afterwards. All ops take uint8 or float32 [H, W, C] with any
number of channels and any size down to 1x1, note what they did (see ``vision.data.ops.base``)
and take boxes, masks and the like along (see ``vision.data.ops.carry``).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import numpy as np

from vision.config.ranges import Fraction, NonNegative, Positive, PositiveRange, Rule, checked
from vision.data.ops.base import Example, image_of, noted
from vision.data.ops.carry import carry_box, carry_flip
from vision.data.ops.resizing import Method, check_made, cv2, resize

Size = Positive[int] | tuple[Positive[int], Positive[int]]
Fill = Literal["zero", "edge", "reflect"]

_PERMUTATION = Rule(
    "a permutation of 0..n-1", lambda order: sorted(order) == list(range(len(order)))
)
_FILLS: dict[str, Literal["constant", "edge", "reflect"]] = {
    "zero": "constant",
    "edge": "edge",
    "reflect": "reflect",
}


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The box cut out of ``image``; parts of the box outside the image are zero."""
    rows, columns = image.shape[:2]
    if top >= 0 and left >= 0 and top + height <= rows and left + width <= columns:
        return image[top : top + height, left : left + width]
    first, last = (min(max(i, 0), rows) for i in (top, top + height))
    start, end = (min(max(i, 0), columns) for i in (left, left + width))
    out = np.zeros((height, width, image.shape[2]), image.dtype)
    out[first - top : last - top, start - left : end - left] = image[first:last, start:end]
    return out


def mirror(image: np.ndarray) -> np.ndarray:
    """``image`` [H, W, C] left to right, as a copy.

    Plane by plane NumPy is four times faster than at once, and OpenCV ten times faster than that.
    """
    if cv2 is not None and image.dtype == np.uint8 and image.shape[2] == 3:
        return cv2.flip(image, 1)
    out = np.empty_like(image)
    for channel in range(image.shape[2]):
        out[:, :, channel] = image[:, ::-1, channel]
    return out


@dataclasses.dataclass(frozen=True)
@checked
class Resize:
    """Resizes to ``size``: an int is the shorter side, a pair is (height, width).

    With an int the longer side becomes ``int(size * longer / shorter)``, as in torchvision. A thin
    image that this would make enormous is a bad record (``check_made``).

    Attributes:
      size: in pixels.
      method: of resampling; see ``vision.data.ops.resizing``.
      key: feature of the image.
    """

    size: Size
    method: Method = "bilinear"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Resize")
        rows, columns = image.shape[:2]
        if isinstance(self.size, int):
            short = min(rows, columns)
            to = (self.size * rows // short, self.size * columns // short)
            check_made((rows, columns), to, (self.size, self.size), "Resize")
        else:
            to = self.size
        out = resize(image, *to, self.method)
        example = carry_box(example, self.key, (0, 0, rows, columns), to)
        return noted({**example, self.key: out}, "Resize", size=(rows, columns), to=to)


@dataclasses.dataclass(frozen=True)
@checked
class CenterCrop:
    """The middle ``size`` of the image; smaller images are padded with zeros all round.

    The box starts at ``round((side - size) / 2)``, and of an odd padding the smaller half comes
    first, as in torchvision. The usual evaluation is ``Resize(256), CenterCrop(224)``.

    Attributes:
      size: in pixels: an int for a square, or (height, width).
      key: feature of the image.
    """

    size: Size
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "CenterCrop")
        rows, columns = image.shape[:2]
        height, width = _pair(self.size)
        box = (_middle(rows, height), _middle(columns, width), height, width)
        example = carry_box(example, self.key, box, (height, width))
        return noted(
            {**example, self.key: crop(image, *box)},
            "CenterCrop",
            size=(rows, columns),
            box=box,
            to=(height, width),
        )


@dataclasses.dataclass(frozen=True)
@checked
class RandomResizedCrop:
    """Inception crop: a box of random area and aspect ratio, resized to ``size``.

    Sampling as in torchvision: up to ten tries of an area uniform in ``scale`` (fraction of the
    image) and an aspect ratio (width / height) log-uniform in ``ratio``; when none fits, the
    largest central box whose aspect ratio lies in ``ratio``.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015.

    Attributes:
      size: in pixels: an int for a square, or (height, width).
      scale: least and largest share of the image's area.
      ratio: least and largest aspect ratio, width / height.
      method: of resampling; see ``vision.data.ops.resizing``.
      key: feature of the image.
    """

    size: Size
    scale: PositiveRange = (0.08, 1.0)
    ratio: PositiveRange = (3 / 4, 4 / 3)
    method: Method = "bilinear"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomResizedCrop")
        rows, columns = image.shape[:2]
        box = self.draw(rows, columns, rng)
        to = self.to
        out = resize(crop(image, *box), *to, self.method)
        example = carry_box(example, self.key, box, to)
        return noted(
            {**example, self.key: out}, "RandomResizedCrop", size=(rows, columns), box=box, to=to
        )

    @property
    def to(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return _pair(self.size)

    def draw(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A box (top, left, height, width) inside an image of rows x columns."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            u, v, y, x = rng.random(4).tolist()  # one call: calls cost more than numbers
            area = rows * columns * (self.scale[0] + u * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + v * (high - low))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= columns and 0 < height <= rows:
                top, left = int(y * (rows - height + 1)), int(x * (columns - width + 1))
                return top, left, height, width
        aspect = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width = min(columns, max(1, round(rows * aspect)))
        height = min(rows, max(1, round(columns / aspect)))
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclasses.dataclass(frozen=True)
@checked
class RandomCrop:
    """Pads by ``padding`` pixels on every side and cuts out a random box of ``size``.

    Where the padded image is still smaller than ``size``, it is padded further with zeros, evenly
    on both sides.

    Attributes:
      size: side, or (height, width).
      padding: pixels on every side.
      fill: what the padding holds: zeros, the edge pixel, or the image mirrored at its edge.
      key: the image feature.
    """

    size: Size
    padding: NonNegative[int] = 0
    fill: Fill = "zero"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomCrop")
        rows, columns = image.shape[:2]
        height, width = _pair(self.size)
        p = self.padding
        top = _start(rows + 2 * p, height, rng) - p
        left = _start(columns + 2 * p, width, rng) - p
        if p and self.fill != "zero":
            padded = np.pad(image, ((p, p), (p, p), (0, 0)), mode=_FILLS[self.fill])
            out = crop(padded, top + p, left + p, height, width)
        else:
            out = crop(image, top, left, height, width)
        example = carry_box(example, self.key, (top, left, height, width), (height, width))
        return noted(
            {**example, self.key: out},
            "RandomCrop",
            size=(rows, columns),
            pad=(p, p, p, p),
            box=(top, left, height, width),
            to=(height, width),
        )


@dataclasses.dataclass(frozen=True)
@checked
class RandomFlip:
    """Mirrors the image with ``probability``.

    Attributes:
      probability: of mirroring.
      axis: ``horizontal`` is left to right, ``vertical`` top to bottom.
      key: the image feature.
      keypoint_swap: which key point of the mirrored object is which: number k afterwards is
        ``keypoint_swap[k]`` before, so that a left eye stays a left eye. Empty for no swap.
    """

    probability: Fraction = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"
    key: str = "image"
    keypoint_swap: Annotated[tuple[int, ...], _PERMUTATION] = ()

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomFlip")
        flip = bool(rng.random() < self.probability)
        size = (image.shape[0], image.shape[1])
        if flip:
            image = mirror(image) if self.axis == "horizontal" else image[::-1]
            example = carry_flip(example, self.key, self.axis, size, self.keypoint_swap)
        else:  # annotations take the same dtypes either way
            example = carry_box(example, self.key, (0, 0, *size), size)
        return noted(
            {**example, self.key: image}, "RandomFlip", flip=flip, axis=self.axis, size=size
        )


def _middle(side: int, size: int) -> int:
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def _start(side: int, size: int, rng: np.random.Generator) -> int:
    return int(rng.integers(0, side - size + 1)) if side >= size else -((size - side) // 2)


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
