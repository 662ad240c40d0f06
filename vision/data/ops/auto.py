"""RandAugment, and the image operations that it and the other policies draw from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vision.config.ranges import Fraction, Ge, Le, NonEmpty, NonNegative, checked, one_of
from vision.data.ops.base import Example, image_of, noted
from vision.data.ops.carry import carry_affine

RAND_AUGMENT_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
RAND_AUGMENT_PAPER_OPS = (
    "Identity",
    "AutoContrast",
    "Equalize",
    "Rotate",
    "Solarize",
    "Color",
    "Posterize",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
_SIGNED = {
    "Rotate": 30.0,  # degrees
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 0.45,  # of the width
    "TranslateY": 0.45,  # of the height
}
_GEOMETRIC = tuple(_SIGNED)
Applied = tuple[str, float]
_ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}
_LUTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "Posterize": lambda x, bits: x & ~(2 ** (8 - int(bits)) - 1),
    "Solarize": lambda x, threshold: np.where(x < threshold, x, 255 - x),
    "SolarizeAdd": lambda x, add: np.where(x < 128, np.minimum(x + int(add), 255), x),
}
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


RandOp = Annotated[str, one_of(("Identity", *RAND_AUGMENT_OPS))]


@dataclasses.dataclass(frozen=True)
@checked
class RandAugment:
    """``num_ops`` operations, drawn with replacement, each applied with ``probability``.

    The convention is timm's ``rand-m9-mstd0.5-inc1`` (the operations of the paper's TPU code
    plus Invert and SolarizeAdd; every operation grows stronger with the magnitude m = 0..10):
    Rotate ±30° m/10; ShearX/Y ±0.3 m/10; TranslateX/Y ±0.45 m/10 of the side; Color, Contrast,
    Brightness, Sharpness by a factor 1 ± 0.9 m/10, at least 0.1; Posterize keeps
    4 - floor(4 m/10) bits; Solarize inverts from 256 - floor(256 m/10) up; SolarizeAdd adds
    floor(11 m) to values below 128; AutoContrast, Equalize and Invert have no magnitude.
    For the paper's plain form set ``magnitude_std=0``, ``probability=1`` and
    ``ops=RAND_AUGMENT_PAPER_OPS``: 14, with Identity, without Invert and SolarizeAdd.
    ``num_ops=0`` changes nothing.

    Works on uint8 [H, W, 3], and on [H, W, 1], where Color does nothing. Notes the operations
    applied, with their arguments, as ``applied``.

    Source: Cubuk et al., RandAugment, 2020.

    Attributes:
      num_ops: how many operations per image.
      magnitude: m, 0..10.
      magnitude_std: standard deviation of a normal draw around ``magnitude`` per operation,
        clipped to 0..10.
      probability: that a drawn operation is applied at all.
      ops: the names to draw from.
      fill: RGB 0..255 of pixels that geometry uncovers (their mean for one channel).
      method: interpolation of the geometric operations; ``random`` draws one of the two.
      key: the image feature.
    """

    num_ops: NonNegative[int] = 2
    magnitude: Annotated[float, Ge(0), Le(10)] = 9.0
    magnitude_std: NonNegative[float] = 0.5
    probability: Fraction = 0.5
    ops: NonEmpty[tuple[RandOp, ...]] = RAND_AUGMENT_OPS
    fill: tuple[int, int, int] = (128, 128, 128)
    method: Literal["random", "bilinear", "bicubic"] = "random"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "RandAugment")
        applied: list[Applied] = []
        for choice in rng.integers(0, len(self.ops), self.num_ops):
            if rng.random() >= self.probability:
                continue
            name = self.ops[choice]
            argument = level(name, self._magnitude(rng), bool(rng.random() < 0.5))
            image = apply(image, name, argument, self.fill, self._resample(rng))
            applied.append((name, argument))
        example = carry_applied(example, self.key, applied, (image.height, image.width))
        out = {**example, self.key: unpillow(image)} if applied else example
        return noted(out, "RandAugment", applied=tuple(applied))

    def _magnitude(self, rng: np.random.Generator) -> float:
        m = self.magnitude + self.magnitude_std * rng.standard_normal()
        return min(max(m, 0.0), 10.0)

    def _resample(self, rng: np.random.Generator) -> Image.Resampling:
        method = self.method
        if method == "random":
            method = "bicubic" if rng.random() < 0.5 else "bilinear"
        return _RESAMPLE[method]


def level(name: str, magnitude: float, negative: bool) -> float:
    """The argument of operation ``name`` at ``magnitude`` 0..10; 0 where it takes none."""
    share = magnitude / 10
    sign = -1.0 if negative else 1.0
    if name in _SIGNED:
        return sign * share * _SIGNED[name]
    if name in _ENHANCERS:
        return max(0.1, 1.0 + sign * share * 0.9)
    if name == "Posterize":
        return 4 - int(share * 4)
    if name == "Solarize":
        return 256 - int(share * 256)
    if name == "SolarizeAdd":
        return int(share * 110)
    return 0.0


def apply(
    image: Image.Image,
    name: str,
    argument: float,
    fill: tuple[int, int, int] = (128, 128, 128),
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """One operation on a Pillow image of mode ``RGB`` or ``L``."""
    if name == "Identity":
        return image
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name == "Invert":
        return ImageOps.invert(image)
    if name in _ENHANCERS:
        if name == "Color" and image.mode == "L":
            return image
        return _ENHANCERS[name](image).enhance(argument)
    if name in _LUTS:
        table = _LUTS[name](np.arange(256), argument).tolist()
        return image.point(table * len(image.getbands()))
    colour = fill if image.mode == "RGB" else round(sum(fill) / 3)
    if name == "Rotate":
        return image.rotate(argument, resample, fillcolor=colour)
    matrix = _matrix(name, argument, image.width, image.height)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=colour)


def _matrix(name: str, argument: float, width: int, height: int) -> tuple[float, ...]:
    return {
        "ShearX": (1, argument, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, argument, 1, 0),
        "TranslateX": (1, 0, argument * width, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, argument * height),
    }[name]


def pillow_of(example: Mapping[str, Any], key: str, op: str) -> Image.Image:
    """``example[key]``, uint8 with 1 or 3 channels, as a Pillow image of mode ``L`` or ``RGB``."""
    array = image_of(example, key, op)
    if array.dtype != np.uint8 or array.shape[2] not in (1, 3):
        raise ValueError(
            f"{op}: {key!r} is {array.dtype}{list(array.shape)}, expected uint8 with 1 or 3 "
            "channels; put it before ValueRange"
        )
    grey = array.shape[2] == 1
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if grey else array))


def unpillow(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3] or [H, W, 1]."""
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def carry_applied(
    example: Example, key: str, applied: Sequence[Applied], size: tuple[int, int]
) -> Example:
    """Annotations after the geometric operations among ``applied``, on an image of (H, W)."""
    height, width = size
    for name, argument in applied:
        if name == "Rotate":
            # Pillow turns counter-clockwise about the middle.
            c, s = math.cos(math.radians(argument)), math.sin(math.radians(argument))
            middle = np.array([height / 2, width / 2])
            turn = np.array([[c, s], [-s, c]])
            inverse = np.concatenate([turn, (middle - turn @ middle)[:, None]], axis=1)
        elif name in _GEOMETRIC:
            a, b, x, d, e, y = _matrix(name, argument, width, height)
            inverse = np.array([[e, d, y], [b, a, x]])
        else:
            continue
        example = carry_affine(example, key, inverse, size)
    return example
