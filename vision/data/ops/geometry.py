"""Resizing, cropping and flipping.

Resizing is Pillow's: antialiased, as in torchvision and timm on PIL images. Crops are cut first
and resized afterwards. All ops take uint8 or float32 [H, W, C] with any number of channels and
any size down to 1x1, and note what they did (see ``vision.data.ops.base``).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from PIL import Image

from vision.data.ops.base import Example, check_probability, check_range, image_of, noted

Size = int | tuple[int, int]
Method = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Fill = Literal["zero", "edge", "reflect"]

_METHODS = {m.name.lower(): m for m in Image.Resampling}
_FILLS: dict[str, Literal["constant", "edge", "reflect"]] = {
    "zero": "constant",
    "edge": "edge",
    "reflect": "reflect",
}


def resize(image: np.ndarray, height: int, width: int, method: Method = "bilinear") -> np.ndarray:
    """``image`` [H, W, C] uint8 or float32, resized by Pillow with antialiasing.

    uint8 results are rounded by Pillow; channel counts other than 1 and 3, and float images,
    are resized channel by channel. The same size gives the same array.
    """
    if image.shape[:2] == (height, width):
        return image
    resample = _METHODS[method]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        out = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resample)
        return np.asarray(out)
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"resize: dtype {image.dtype}, expected uint8 or float32")
    planes = [
        Image.fromarray(np.ascontiguousarray(image[:, :, c])).resize((width, height), resample)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(p) for p in planes], axis=2)


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The box cut out of ``image``; parts of the box outside the image are zero."""
    rows, columns = image.shape[:2]
    first, last = (min(max(i, 0), rows) for i in (top, top + height))
    start, end = (min(max(i, 0), columns) for i in (left, left + width))
    inside = image[first:last, start:end]
    if inside.shape[:2] == (height, width):
        return inside
    out = np.zeros((height, width, image.shape[2]), image.dtype)
    out[first - top : last - top, start - left : end - left] = inside
    return out


def mirror(image: np.ndarray) -> np.ndarray:
    """``image`` [H, W, C] left to right, as a copy: plane by plane NumPy is four times faster."""
    out = np.empty_like(image)
    for channel in range(image.shape[2]):
        out[:, :, channel] = image[:, ::-1, channel]
    return out


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resizes to ``size``: an int is the shorter side, a pair is (height, width).

    With an int the longer side becomes ``int(size * longer / shorter)``, as in torchvision.
    """

    size: Size
    method: Method = "bilinear"
    key: str = "image"

    def __post_init__(self) -> None:
        _check_size(self.size)
        _check_method(self.method)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Resize")
        rows, columns = image.shape[:2]
        if isinstance(self.size, int):
            short = min(rows, columns)
            to = (self.size * rows // short, self.size * columns // short)
        else:
            to = self.size
        out = resize(image, *to, self.method)
        return noted({**example, self.key: out}, "Resize", size=(rows, columns), to=to)


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The middle ``size`` of the image; smaller images are padded with zeros all round.

    The box starts at ``round((side - size) / 2)``, as in torchvision. The usual evaluation is
    ``Resize(256), CenterCrop(224)``.
    """

    size: Size
    key: str = "image"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "CenterCrop")
        rows, columns = image.shape[:2]
        height, width = _pair(self.size)
        box = (round((rows - height) / 2), round((columns - width) / 2), height, width)
        return noted(
            {**example, self.key: crop(image, *box)},
            "CenterCrop",
            size=(rows, columns),
            box=box,
            to=(height, width),
        )


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Inception crop: a box of random area and aspect ratio, resized to ``size``.

    Sampling as in torchvision: up to ten tries of an area uniform in ``scale`` (fraction of the
    image) and an aspect ratio (width / height) log-uniform in ``ratio``; when none fits, the
    largest central box whose aspect ratio lies in ``ratio``.

    Source: Szegedy et al., Going Deeper with Convolutions, 2015.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    method: Method = "bilinear"
    key: str = "image"

    def __post_init__(self) -> None:
        _check_size(self.size)
        _check_method(self.method)
        check_range("scale", self.scale)
        check_range("ratio", self.ratio)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomResizedCrop")
        rows, columns = image.shape[:2]
        box = self.draw(rows, columns, rng)
        to = _pair(self.size)
        out = resize(crop(image, *box), *to, self.method)
        return noted(
            {**example, self.key: out}, "RandomResizedCrop", size=(rows, columns), box=box, to=to
        )

    def draw(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A box (top, left, height, width) inside an image of rows x columns."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            u, v = rng.random(2)
            area = rows * columns * (self.scale[0] + u * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + v * (high - low))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= columns and 0 < height <= rows:
                top = int(rng.integers(0, rows - height + 1))
                left = int(rng.integers(0, columns - width + 1))
                return top, left, height, width
        aspect = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width = min(columns, max(1, round(rows * aspect)))
        height = min(rows, max(1, round(columns / aspect)))
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclasses.dataclass(frozen=True)
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
    padding: int = 0
    fill: Fill = "zero"
    key: str = "image"

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.padding < 0:
            raise ValueError(f"padding={self.padding}: must not be negative")
        if self.fill not in _FILLS:
            raise ValueError(f"fill={self.fill!r}: valid fills are {', '.join(_FILLS)}")

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
        return noted(
            {**example, self.key: out},
            "RandomCrop",
            size=(rows, columns),
            pad=(p, p, p, p),
            box=(top, left, height, width),
            to=(height, width),
        )


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors the image with ``probability``: left to right, or top to bottom."""

    probability: float = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"
    key: str = "image"

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        if self.axis not in ("horizontal", "vertical"):
            raise ValueError(f"axis={self.axis!r}: valid axes are 'horizontal', 'vertical'")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomFlip")
        flip = bool(rng.random() < self.probability)
        size = image.shape[:2]
        if flip:
            image = mirror(image) if self.axis == "horizontal" else image[::-1]
        return noted(
            {**example, self.key: image}, "RandomFlip", flip=flip, axis=self.axis, size=size
        )


def _start(side: int, size: int, rng: np.random.Generator) -> int:
    return int(rng.integers(0, side - size + 1)) if side >= size else -((size - side) // 2)


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _check_size(size: Size) -> None:
    sides = (size,) if isinstance(size, int) else tuple(size)
    if len(sides) > 2 or not sides or not all(isinstance(s, int) and s > 0 for s in sides):
        raise ValueError(f"size={size!r}: must be a positive int or (height, width)")


def _check_method(method: str) -> None:
    if method not in _METHODS:
        raise ValueError(f"method={method!r}: valid methods are {', '.join(_METHODS)}")
