"""Ops that hide part of an image."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from vision.data.ops.base import Example, check_probability, check_range, image_of, noted


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Overwrites one random box.

    Up to ten tries of an area uniform in ``scale`` (fraction of the image) and an aspect ratio
    (height / width) log-uniform in ``ratio``; the box must be smaller than the image, so a 1x1
    image is never touched.

    Source: Zhong et al., Random Erasing Data Augmentation, 2020; ranges as in timm.

    Attributes:
      probability: of erasing at all.
      scale: range of the box's share of the image.
      ratio: range of height / width.
      fill: ``zero``, or ``noise``: standard normal in float images, uniform 0..255 in uint8.
      key: the image feature.
    """

    probability: float = 0.25
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["zero", "noise"] = "noise"
    key: str = "image"

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("scale", self.scale)
        check_range("ratio", self.ratio)
        if self.fill not in ("zero", "noise"):
            raise ValueError(f"fill={self.fill!r}: valid fills are 'zero' and 'noise'")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "RandomErasing")
        box = self.draw(image.shape[0], image.shape[1], rng)
        if box is not None:
            top, left, height, width = box
            image = image.copy()
            patch = image[top : top + height, left : left + width]
            if self.fill == "zero":
                patch[...] = 0
            elif image.dtype == np.uint8:
                patch[...] = rng.integers(0, 256, patch.shape, np.uint8)
            else:
                patch[...] = rng.standard_normal(patch.shape, np.float32)
        return noted({**example, self.key: image}, "RandomErasing", erased=box)

    def draw(
        self, rows: int, columns: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        """A box (top, left, height, width), or None."""
        if rng.random() >= self.probability:
            return None
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            u, v = rng.random(2)
            area = rows * columns * (self.scale[0] + u * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + v * (high - low))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height < rows and 0 < width < columns:
                top = int(rng.integers(0, rows - height + 1))
                left = int(rng.integers(0, columns - width + 1))
                return top, left, height, width
        return None
