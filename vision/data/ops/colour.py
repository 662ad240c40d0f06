"""Colour and detail: jitter, greyscale, solarize, blur, JPEG compression. uint8 [H, W, 1 or 3]."""

from __future__ import annotations

import dataclasses
import io
from typing import Annotated

import numpy as np
from PIL import Image, ImageFilter

from vision.config.ranges import Fraction, Ge, Le, NonNegative, PositiveRange, Rule, checked
from vision.data.ops.auto import apply, pillow_of, unpillow
from vision.data.ops.base import Example, noted

_QUALITIES = Rule("(low, high) within 1..100", lambda pair: 1 <= pair[0] <= pair[1] <= 100)


@dataclasses.dataclass(frozen=True)
@checked
class ColorJitter:
    """Brightness, contrast, saturation and hue by random amounts, in random order.

    Factors are uniform in max(0, 1 - x)..1 + x; the hue turns by a uniform share of the circle in
    -hue..hue, in 8-bit HSV as torchvision does on PIL images. Colour operations leave one-channel
    images alone.

    Attributes:
      brightness: x, at least 0.
      contrast: x.
      saturation: x.
      hue: 0..0.5.
      probability: of jittering at all; SimCLR and DINO take 0.8.
      key: the image feature.
    """

    brightness: NonNegative[float] = 0.4
    contrast: NonNegative[float] = 0.4
    saturation: NonNegative[float] = 0.4
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    probability: Fraction = 1.0
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "ColorJitter")
        gate, order = rng.random(), rng.permutation(4)
        reach = np.array([self.brightness, self.contrast, self.saturation])
        low, high = np.maximum(0, 1 - reach), 1 + reach
        factors = [*(low + rng.random(3) * (high - low)).tolist(), float(rng.uniform(-1, 1))]
        factors[3] *= self.hue
        if gate >= self.probability:
            return noted(example, "ColorJitter", applied=())
        applied = []
        for i in order.tolist():
            name = ("Brightness", "Contrast", "Color", "Hue")[i]
            if factors[i] == (0.0 if name == "Hue" else 1.0):
                continue
            image = turn_hue(image, factors[i]) if name == "Hue" else apply(image, name, factors[i])
            applied.append((name, factors[i]))
        out = {**example, self.key: unpillow(image)} if applied else example
        return noted(out, "ColorJitter", applied=tuple(applied))


def turn_hue(image: Image.Image, share: float) -> Image.Image:
    """``image`` with its hue turned by ``share`` of the circle, -0.5..0.5; grey stays."""
    if image.mode != "RGB":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(share * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


@dataclasses.dataclass(frozen=True)
@checked
class RandomGrayscale:
    """Luma (ITU-R 601) in every channel, with ``probability``.

    Attributes:
      probability: of changing an image, 0..1.
      key: feature of the image.
    """

    probability: Fraction = 0.2
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "RandomGrayscale")
        grey = bool(rng.random() < self.probability)
        if grey:
            example = {**example, self.key: unpillow(image.convert("L").convert(image.mode))}
        return noted(example, "RandomGrayscale", grey=grey)


@dataclasses.dataclass(frozen=True)
@checked
class RandomSolarize:
    """Inverts what is at least ``threshold`` (0..256), with ``probability``.

    Attributes:
      probability: of changing an image, 0..1.
      threshold: smallest value that is inverted, 0..256.
      key: feature of the image.
    """

    probability: Fraction = 0.2
    threshold: Annotated[int, Ge(0), Le(256)] = 128
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "RandomSolarize")
        solarize = bool(rng.random() < self.probability)
        if solarize:
            out = apply(image, "Solarize", self.threshold)
            example = {**example, self.key: unpillow(out)}
        return noted(example, "RandomSolarize", solarize=solarize)


@dataclasses.dataclass(frozen=True)
@checked
class GaussianBlur:
    """Blur of a sigma uniform in ``sigma_px``, with ``probability``.

    Pillow's blur: three box blurs, within a few grey levels of a true Gaussian. SimCLR and DINO
    take sigma 0.1..2 pixels at size 224.

    Attributes:
      probability: of changing an image, 0..1.
      sigma_px: least and largest sigma in pixels.
      key: feature of the image.
    """

    probability: Fraction = 0.5
    sigma_px: PositiveRange = (0.1, 2.0)
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "GaussianBlur")
        gate, sigma = rng.random(), float(rng.uniform(*self.sigma_px))
        if gate >= self.probability:
            return noted(example, "GaussianBlur", sigma_px=0.0)
        out = unpillow(image.filter(ImageFilter.GaussianBlur(sigma)))
        return noted({**example, self.key: out}, "GaussianBlur", sigma_px=sigma)


@dataclasses.dataclass(frozen=True)
@checked
class JpegCompression:
    """Encodes and decodes as a JPEG of a quality uniform in ``quality``, with ``probability``.

    Attributes:
      probability: of changing an image, 0..1.
      quality: least and largest quality, within 1..100.
      key: feature of the image.
    """

    probability: Fraction = 0.5
    quality: Annotated[tuple[int, int], _QUALITIES] = (30, 95)
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "JpegCompression")
        gate = rng.random()
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        if gate >= self.probability:
            return noted(example, "JpegCompression", quality=None)
        out = unpillow(through_jpeg(image, quality))
        return noted({**example, self.key: out}, "JpegCompression", quality=quality)


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """``image`` as it comes back from a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert(image.mode)
