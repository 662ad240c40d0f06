"""The preprocessing of images of any shape, as SigLIP2's NaFlex has it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from vision.config.ranges import Positive, checked
from vision.data import ops
from vision.data.ops.base import Op
from vision.data.ops.resizing import Method


@dataclasses.dataclass(frozen=True)
@checked
class NaflexPreprocessing:
    """From a decoded image of any shape to the patches that a ``NaflexViT`` reads.

    Attributes:
      patch: sides of a patch in pixels.
      most: number of patches of an image.
      method: of resizing; see ``vision.data.ops.resizing``.
      mean, std: per channel, of pixels in 0..1; the input is (pixel - mean) / std.
    """

    patch: Positive[int] = 16
    most: Positive[int] = 256
    method: Method = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        ops.Normalize(self.mean, self.std)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a square image that has as many patches as there is room for."""
        side = self.patch * math.isqrt(self.most)
        return side, side

    def at(self, side: int) -> NaflexPreprocessing:
        """The same with as many patches as square images of another size have."""
        return dataclasses.replace(self, most=max(1, side // self.patch) ** 2)

    def evaluation(self, decode: bool = True) -> tuple[Op, ...]:
        """Ops for ``EvalData.ops``: decoding, resizing to whole patches, and values."""
        first = (ops.Decode(mode="grey" if len(self.mean) == 1 else "rgb"),) if decode else ()
        return *first, ops.ResizeToPatches(self.patch, self.most, self.method), *self.values()

    def values(self) -> tuple[Op, ...]:
        """The ops from uint8 in whole patches to what the network reads, for training too."""
        patches = ops.Patchify(self.patch, self.most)
        if len(set(self.mean)) == 1 and len(set(self.std)) == 1:
            mean, std = self.mean[0], self.std[0]
            return ops.ValueRange(low=-mean / std, high=(1 - mean) / std), patches
        return ops.ValueRange(), ops.Normalize(self.mean, self.std), patches


def patchify_of(evaluation: Iterable[Op]) -> ops.Patchify | None:
    """The op that makes patches, if there is one."""
    return next((op for op in evaluation if isinstance(op, ops.Patchify)), None)
