"""Learned and random augmentation policies over the operations of ``vision.data.ops.auto``.

All take uint8 [H, W, 3] or [H, W, 1], note what they applied, with its arguments, as
``applied``, and take annotations along through the geometric operations.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import numpy as np
from PIL import ImageFilter

from vision.config.ranges import Fraction, Ge, Le, Positive, Rule, checked
from vision.data.ops.auto import Applied, apply, carry_applied, pillow_of, unpillow
from vision.data.ops.base import Example, noted

# (operation, probability, magnitude 0..9) twice: Cubuk et al., AutoAugment, 2019, tables 7 and 9.
_IMAGENET = """
Posterize 0.4 8 Rotate 0.6 9; Solarize 0.6 5 AutoContrast 0.6 0; Equalize 0.8 0 Equalize 0.6 0;
Posterize 0.6 7 Posterize 0.6 6; Equalize 0.4 0 Solarize 0.2 4; Equalize 0.4 0 Rotate 0.8 8;
Solarize 0.6 3 Equalize 0.6 0; Posterize 0.8 5 Equalize 1.0 0; Rotate 0.2 3 Solarize 0.6 8;
Equalize 0.6 0 Posterize 0.4 6; Rotate 0.8 8 Color 0.4 0; Rotate 0.4 9 Equalize 0.6 0;
Equalize 0.0 0 Equalize 0.8 0; Invert 0.6 0 Equalize 1.0 0; Color 0.6 4 Contrast 1.0 8;
Rotate 0.8 8 Color 1.0 2; Color 0.8 8 Solarize 0.8 7; Sharpness 0.4 7 Invert 0.6 0;
ShearX 0.6 5 Equalize 1.0 0; Color 0.4 0 Equalize 0.6 0; Equalize 0.4 0 Solarize 0.2 4;
Solarize 0.6 5 AutoContrast 0.6 0; Invert 0.6 0 Equalize 1.0 0; Color 0.6 4 Contrast 1.0 8;
Equalize 0.8 0 Equalize 0.6 0
"""
_CIFAR10 = """
Invert 0.1 0 Contrast 0.2 6; Rotate 0.7 2 TranslateX 0.3 9; Sharpness 0.8 1 Sharpness 0.9 3;
ShearY 0.5 8 TranslateY 0.7 9; AutoContrast 0.5 0 Equalize 0.9 0; ShearY 0.2 7 Posterize 0.3 7;
Color 0.4 3 Brightness 0.6 7; Sharpness 0.3 9 Brightness 0.7 9; Equalize 0.6 0 Equalize 0.5 0;
Contrast 0.6 7 Sharpness 0.6 5; Color 0.7 7 TranslateX 0.5 8; Equalize 0.3 0 AutoContrast 0.4 0;
TranslateY 0.4 3 Sharpness 0.2 6; Brightness 0.9 6 Color 0.2 8; Solarize 0.5 2 Invert 0.0 0;
Equalize 0.2 0 AutoContrast 0.6 0; Equalize 0.2 0 Equalize 0.6 0; Color 0.9 9 Equalize 0.6 0;
AutoContrast 0.8 0 Solarize 0.2 8; Brightness 0.1 3 Color 0.7 0; Solarize 0.4 5 AutoContrast 0.9 0;
TranslateY 0.9 9 TranslateY 0.7 9; AutoContrast 0.9 0 Solarize 0.8 3; Equalize 0.8 0 Invert 0.1 0;
TranslateY 0.7 9 AutoContrast 0.9 0
"""
Step = tuple[str, float, int]


def _parsed(text: str) -> tuple[tuple[Step, ...], ...]:
    policies = []
    for pair in text.split(";"):
        words = pair.split()
        policies.append(tuple((words[i], float(words[i + 1]), int(words[i + 2])) for i in (0, 3)))
    return tuple(policies)


POLICIES = {"imagenet": _parsed(_IMAGENET), "cifar10": _parsed(_CIFAR10)}
_ENHANCERS = ("Color", "Contrast", "Brightness", "Sharpness")
_SIGNED_MOST = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3}
WIDE_OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


@dataclasses.dataclass(frozen=True)
@checked
class AutoAugment:
    """One of 25 learned pairs of operations, each applied with its own probability.

    Magnitudes 0..9 as in torchvision: Rotate, ShearX/Y and the enhancers' 1 ± 0.9 m/9 linear with
    a random sign, TranslateX/Y up to 150/331 of the side in whole pixels, Posterize keeps
    8 - round(m / 2.25) bits, Solarize inverts from 255 - 255 m/9 up. Geometry interpolates
    linearly, where torchvision's default takes the nearest pixel.

    Source: Cubuk et al., AutoAugment, 2019.

    Attributes:
      policy: ``imagenet`` or ``cifar10``.
      fill: RGB 0..255 of pixels that geometry uncovers.
      key: the image feature.
    """

    policy: Literal["imagenet", "cifar10"] = "imagenet"
    fill: tuple[int, int, int] = (128, 128, 128)
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "AutoAugment")
        pair = POLICIES[self.policy][int(rng.integers(25))]
        applied: list[Applied] = []
        for name, probability, magnitude in pair:
            if rng.random() < probability:
                argument = auto_level(name, magnitude, bool(rng.random() < 0.5), image.size)
                image = apply(image, name, argument, self.fill)
                applied.append((name, argument))
        example = carry_applied(example, self.key, applied, (image.height, image.width))
        out = {**example, self.key: unpillow(image)} if applied else example
        return noted(out, "AutoAugment", applied=tuple(applied))


def auto_level(name: str, magnitude: int, negative: bool, size: tuple[int, int]) -> float:
    """The argument of ``name`` at ``magnitude`` 0..9 on an image of (width, height) ``size``."""
    share = magnitude / 9
    sign = -1.0 if negative else 1.0
    if name in _SIGNED_MOST:
        return sign * share * _SIGNED_MOST[name]
    if name in _ENHANCERS:
        return 1.0 + sign * share * 0.9
    if name in ("TranslateX", "TranslateY"):
        side = size[name == "TranslateY"]
        return sign * int(share * side * 150 / 331) / side
    if name == "Posterize":
        return 8 - round(magnitude / 2.25)
    return 255 - 255 * magnitude / 9 if name == "Solarize" else 0.0


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """One operation, uniformly drawn, at a strength uniformly drawn from 0..30: the wide space.

    Shears up to 0.99, translations up to 32 pixels, Rotate up to 135°, enhancers 1 ± 0.99,
    Posterize keeps 8 down to 2 bits, Solarize inverts from 255 down to 0; and Identity. What
    geometry uncovers is black, as in torchvision; it interpolates linearly.

    Source: Müller and Hutter, TrivialAugment, 2021; tables as in torchvision.

    Attributes:
      fill: RGB of what geometry uncovers, 0..255.
      key: feature of the image.
    """

    fill: tuple[int, int, int] = (0, 0, 0)
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "TrivialAugment")
        name = WIDE_OPS[int(rng.integers(len(WIDE_OPS)))]
        strength, negative = int(rng.integers(31)), bool(rng.random() < 0.5)
        argument = wide_level(name, strength, negative, image.size)
        image = apply(image, name, argument, self.fill)
        applied = [] if name == "Identity" else [(name, argument)]
        example = carry_applied(example, self.key, applied, (image.height, image.width))
        out = {**example, self.key: unpillow(image)} if applied else example
        return noted(out, "TrivialAugment", applied=tuple(applied))


def wide_level(name: str, strength: int, negative: bool, size: tuple[int, int]) -> float:
    """The argument of ``name`` at ``strength`` 0..30 on an image of (width, height) ``size``."""
    share = strength / 30
    sign = -1.0 if negative else 1.0
    if name in ("ShearX", "ShearY"):
        return sign * share * 0.99
    if name in ("TranslateX", "TranslateY"):
        return sign * int(share * 32) / size[name == "TranslateY"]
    if name == "Rotate":
        return sign * share * 135
    if name in _ENHANCERS:
        return 1.0 + sign * share * 0.99
    if name == "Posterize":
        return 8 - round(share * 6)
    return 255 - 255 * strength / 30 if name == "Solarize" else 0.0


MIX_OPS = (
    "AutoContrast",
    "Equalize",
    "Posterize",
    "Rotate",
    "Solarize",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


@dataclasses.dataclass(frozen=True)
@checked
class AugMix:
    """A convex mixture of the image and of chains of operations on it.

    image' = m image + (1 - m) sum_i w_i chain_i(image) with w ~ Dirichlet(alpha) and
    m ~ Beta(alpha, alpha); a chain has ``depth`` operations, drawn uniformly, each at a strength
    uniform in 0.1..severity of 10. The operations exclude those of ImageNet-C's corruptions, and
    what geometry uncovers is black.

    Geometry moves only part of the mixture, so boxes and masks stay those of the image.

    Source: Hendrycks et al., AugMix, 2020.

    Attributes:
      severity: 0.1..10.
      width: number of chains.
      depth: operations per chain; -1 for 1 to 3, drawn per chain.
      alpha: of both distributions.
      key: the image feature.
    """

    severity: Annotated[float, Ge(0.1), Le(10)] = 3.0
    width: Positive[int] = 3
    depth: Annotated[int, Rule("a whole number >= 1, or -1", lambda n: n >= 1 or n == -1)] = -1
    alpha: Positive[float] = 1.0
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "AugMix")
        shares = rng.dirichlet([self.alpha] * self.width)
        weight = float(rng.beta(self.alpha, self.alpha))
        original = unpillow(image).astype(np.float32)
        mixed = np.zeros_like(original)
        chains = []
        for share in shares:
            depth = self.depth if self.depth > 0 else int(rng.integers(1, 4))
            chain, applied = image, []
            for choice in rng.integers(0, len(MIX_OPS), depth):
                name = MIX_OPS[choice]
                argument = self._level(name, rng, image.size)
                chain = apply(chain, name, argument, fill=(0, 0, 0))
                applied.append((name, argument))
            mixed += np.float32(share) * unpillow(chain)
            chains.append(tuple(applied))
        out = weight * original + (1 - weight) * mixed
        array = np.clip(np.rint(out), 0, 255).astype(np.uint8)
        notes = {"own": weight, "shares": tuple(shares.tolist()), "chains": tuple(chains)}
        return noted({**example, self.key: array}, "AugMix", **notes)

    def _level(self, name: str, rng: np.random.Generator, size: tuple[int, int]) -> float:
        share = rng.uniform(0.1, self.severity) / 10
        sign = -1.0 if rng.random() < 0.5 else 1.0
        if name == "Posterize":
            return 4 - int(share * 4)
        if name == "Solarize":
            return 256 - int(share * 256)
        if name in ("TranslateX", "TranslateY"):
            return sign * share / 3
        return sign * share * _SIGNED_MOST[name] if name in _SIGNED_MOST else 0.0


@dataclasses.dataclass(frozen=True)
@checked
class ThreeAugment:
    """Greyscale, solarize or blur, one of the three; colour jitter and crops come beside it.

    The recipe is ``RandomFlip(), ThreeAugment(), ColorJitter(0.3, 0.3, 0.3)``. The blur's sigma is
    uniform in 0.1..2, Solarize inverts from 128 up.

    Source: Touvron et al., DeiT III, 2022.

    Attributes:
      probability: of changing an image, 0..1.
      key: feature of the image.
    """

    probability: Fraction = 1.0
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = pillow_of(example, self.key, "ThreeAugment")
        gate, choice, sigma = rng.random(), int(rng.integers(3)), float(rng.uniform(0.1, 2.0))
        if gate >= self.probability:
            return noted(example, "ThreeAugment", applied=())
        name = ("Grayscale", "Solarize", "Blur")[choice]
        mode = image.mode
        if name == "Grayscale":
            image = image.convert("L").convert(mode)
        elif name == "Solarize":
            image = apply(image, "Solarize", 128)
        else:
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        argument = {"Grayscale": 0.0, "Solarize": 128.0, "Blur": sigma}[name]
        return noted(
            {**example, self.key: unpillow(image)}, "ThreeAugment", applied=((name, argument),)
        )
