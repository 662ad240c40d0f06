"""Ops that hide part of an image."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import numpy as np

from vision.config.ranges import Fraction, NonNegative, Positive, PositiveRange, Rule, checked
from vision.data.ops.base import Example, image_of, noted


@dataclasses.dataclass(frozen=True)
@checked
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

    probability: Fraction = 0.25
    scale: PositiveRange = (0.02, 1 / 3)
    ratio: PositiveRange = (0.3, 1 / 0.3)
    fill: Literal["zero", "noise"] = "noise"
    key: str = "image"

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


@dataclasses.dataclass(frozen=True)
@checked
class PatchMask:
    """``mask`` bool (h, w), True where a patch is hidden: ``share`` of them, uniformly drawn.

    The number hidden is h w - int(h w (1 - share)), the same for every example.

    Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2022.

    Attributes:
      grid: (h, w) in patches.
      share: of hidden patches, 0..1.
      out: the feature that is made.
    """

    grid: tuple[Positive[int], Positive[int]] = (14, 14)
    share: Fraction = 0.75
    out: str = "mask"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        count = math.prod(self.grid)
        hidden = count - int(count * (1 - self.share))
        return {**example, self.out: (rng.permutation(count) < hidden).reshape(self.grid)}


@dataclasses.dataclass(frozen=True)
@checked
class BlockPatchMask:
    """``mask`` bool (h, w), True where hidden: rectangular blocks until ``hidden`` patches are.

    Blocks have at least ``least`` patches and an aspect ratio (height / width) log-uniform in
    ``ratio``; the last patches are drawn singly or given back, so that exactly ``hidden`` are
    hidden and batches have one number.

    Source: Bao et al., BEiT, 2022, algorithm 1.

    Attributes:
      grid: (h, w) in patches.
      hidden: how many patches to hide.
      least: of patches in a block.
      ratio: range of height / width.
      out: the feature that is made.
    """

    grid: tuple[Positive[int], Positive[int]] = (14, 14)
    hidden: NonNegative[int] = 75
    least: Positive[int] = 16
    ratio: PositiveRange = (0.3, 1 / 0.3)
    out: str = "mask"

    def __post_init__(self) -> None:
        if self.hidden > math.prod(self.grid):
            raise ValueError(f"hidden={self.hidden}: must lie in 0..{math.prod(self.grid)}")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        mask = draw_blocks(rng, self.grid, self.hidden, self.least, self.ratio)
        return {**example, self.out: mask}


@dataclasses.dataclass(frozen=True)
@checked
class BlockPatchMasks:
    """``mask`` bool [views, h, w]: of each view, by ``probability``, a share hidden in blocks.

    The share is uniform in ``share``; otherwise, see ``BlockPatchMask``. Views without have none
    hidden: Zhou et al., iBOT, 2022, and Oquab et al., DINOv2, 2024.

    Attributes:
      grid: (h, w) in patches.
      views: how many masks.
      probability: that anything of a view is hidden.
      share: least and most of a view's patches.
      least: of patches in a block.
      ratio: range of height / width.
      out: the feature that is made.
    """

    grid: tuple[Positive[int], Positive[int]] = (14, 14)
    views: Positive[int] = 2
    probability: Fraction = 0.5
    share: Annotated[PositiveRange, Rule("at most 1", lambda pair: pair[1] <= 1)] = (0.1, 0.5)
    least: Positive[int] = 4
    ratio: PositiveRange = (0.3, 1 / 0.3)
    out: str = "mask"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        masks = np.zeros((self.views, *self.grid), bool)
        for mask in masks:
            chance, share = rng.random(), rng.uniform(*self.share)
            if chance < self.probability:
                hidden = round(share * mask.size)
                mask[:] = draw_blocks(rng, self.grid, hidden, self.least, self.ratio)
        return {**example, self.out: masks}


def draw_blocks(
    rng: np.random.Generator,
    grid: tuple[int, int],
    hidden: int,
    least: int,
    ratio: tuple[float, float],
) -> np.ndarray:
    """A mask bool ``grid``, exactly ``hidden`` of it True, in blocks: see ``BlockPatchMask``."""
    rows, columns = grid
    mask = np.zeros(grid, bool)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10 * rows * columns):
        missing = hidden - int(mask.sum())
        if missing < least:
            break
        area = rng.uniform(least, missing)
        aspect = math.exp(rng.uniform(low, high))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height <= rows and 0 < width <= columns):
            continue
        top = int(rng.integers(0, rows - height + 1))
        left = int(rng.integers(0, columns - width + 1))
        mask[top : top + height, left : left + width] = True
    flat = mask.reshape(-1)
    missing = hidden - int(mask.sum())
    pool = np.flatnonzero(flat == (missing < 0))
    flat[rng.permutation(pool)[: abs(missing)]] = missing > 0
    return mask
