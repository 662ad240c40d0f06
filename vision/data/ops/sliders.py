"""Nuisances of continuous strength: the same fog, snow or clutter at any scale.

A slider draws everything it needs once per example, whatever its scale, so that two scales of one
example differ in strength alone, and scale 0 is the image itself, bit for bit. Scales are about
those of the published diffusion sliders: 1 is clearly visible, 2.5 strong; there is no upper limit.

Lengths are shares of the image's short side, so that images of all sizes are affected equally.

Source of the protocol: Duenkel et al., CNS-Bench: Benchmarking Image Classifier Robustness Under
Continuous Nuisance Shifts, 2025, whose sliders are learned in a diffusion model. These are drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from scipy import ndimage

from vision.config.ranges import Finite, NonNegative, checked, one_of
from vision.data.ops.auto import pillow_of, unpillow
from vision.data.ops.base import Example, noted
from vision.data.ops.corruptions import motion, plasma

Rng = np.random.Generator


def slide(image: np.ndarray, name: str, scale: float, rng: Rng) -> np.ndarray:
    """uint8 [H, W, C] under ``name`` at ``scale``; ``image`` itself at 0."""
    if scale == 0:
        return image
    out = SLIDERS[name](image.astype(np.float64) / 255, scale, rng)
    return np.rint(np.clip(out, 0, 1) * 255).astype(np.uint8)


def _fog(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    # Light that passes decays with the depth of the fog, which has banks.
    depth = 0.4 + plasma(x.shape[:2], 2.0, rng)[:, :, None]
    passes = np.exp(-0.6 * scale * depth)
    return x * passes + 0.85 * (1 - passes)


def _snow(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    height, width = x.shape[:2]
    flakes = rng.random((height, width, 1))
    angle = float(rng.uniform(-120, -60))
    # More and more of the same places are flakes.
    fallen = np.where(flakes < 1 - math.exp(-0.08 * scale), 1.0, 0.0)
    radius = max(1, round(0.03 * min(height, width)))
    drift = motion(fallen, radius, radius, angle)
    return np.maximum(x, np.clip(drift * (1 + 2 * radius) / 2, 0, 1))


def _blur(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    sigma = 0.02 * scale * min(x.shape[:2])
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _noise(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    return x + 0.1 * scale * rng.normal(size=x.shape)


def _hue(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    """Colours turn about the grey axis, 60 degrees at scale 1 to the side that is drawn."""
    side = 1 if rng.random() < 0.5 else -1
    if x.shape[2] == 1:
        return x
    angle = side * scale * math.pi / 3
    even, odd = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + even + odd * (np.eye(3)[[2, 0, 1]] - np.eye(3)[[1, 2, 0]])
    return x @ turn


def _contrast(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    mean = x.mean((0, 1), keepdims=True)
    return mean + (x - mean) * math.exp(-0.8 * scale)


def _clutter(x: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    """Small discs over the picture, eight at scale 1; a larger scale adds to those of a smaller."""
    height, width, channels = x.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    side, out = min(height, width), x.copy()
    discs = math.ceil(8 * scale)
    for k in range(discs):
        y, z, size, *colour = rng.random(6)
        # The last of them grows, so that a little more scale is a little more clutter.
        growth = min(1.0, 8 * scale - k)
        radius = growth * (0.03 + 0.05 * size) * side
        inside = (rows - y * height) ** 2 + (columns - z * width) ** 2 <= radius**2
        out[inside] = colour[:channels]
    return out


SLIDERS: dict[str, Callable[[np.ndarray, float, Rng], np.ndarray]] = {
    "fog": _fog,
    "snow": _snow,
    "blur": _blur,
    "noise": _noise,
    "hue": _hue,
    "contrast": _contrast,
    "clutter": _clutter,
}
"""name: function of (float image in 0..1, scale above 0, generator)."""


@dataclasses.dataclass(frozen=True)
@checked
class Slider:
    """One of ``SLIDERS`` at a strength, on uint8 [H, W, 1 or 3].

    What is drawn depends on one number of the example's generator, so evaluation data is the same
    every time, and of a record the same at every scale.

    Attributes:
      name: which nuisance.
      scale: 0 or more; 0 changes nothing.
      key: the image feature.
    """

    name: Annotated[str, one_of(SLIDERS)]
    scale: NonNegative[Finite] = 1.0
    key: str = "image"

    def __call__(self, example: Example, rng: Rng) -> Example:
        image = unpillow(pillow_of(example, self.key, "Slider"))
        slider_rng = np.random.default_rng(int(rng.integers(2**63)))
        out = slide(image, self.name, self.scale, slider_rng)
        return noted({**example, self.key: out}, "Slider", slider=self.name, scale=self.scale)
