"""Random images of any shape, for benchmarks and for trying a config without its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.source import SourceInfo


@dataclasses.dataclass(frozen=True)
@checked
class Fake:
    """Uniform noise images with labels 0, 1, 2, ... in turn; a function of the index alone.

    Attributes:
      num_examples: number of records.
      image_size: side, or (height, width), in pixels.
      num_classes: labels are ``index % num_classes``.
      channels: of the image.
    """

    num_examples: Positive[int] = 1024
    image_size: Positive[int] | tuple[Positive[int], Positive[int]] = 224
    num_classes: Positive[int] = 1000
    channels: Positive[int] = 3

    @property
    def _shape(self) -> tuple[int, int, int]:
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height, width, self.channels

    @property
    def info(self) -> SourceInfo:
        height, width, channels = self._shape
        return SourceInfo(
            name="fake",
            num_examples=self.num_examples,
            class_names=tuple(f"class {i}" for i in range(self.num_classes)),
            features={
                "image": f"uint8[{height},{width},{channels}], 0..255",
                "label": f"int32, 0..{self.num_classes - 1}",
            },
            licence="none: random numbers",
            homepage="vision/data/sources/fake.py",
            citation="not applicable: random numbers",
            consent="not applicable: random numbers",
            personal_data="no",
            collection="drawn by a random number generator",
        )

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.Generator(np.random.Philox(key=index))
        return {
            "image": rng.integers(0, 256, self._shape, np.uint8),
            "label": np.int32(index % self.num_classes),
        }

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        records = [self[int(i)] for i in indices]
        return {k: np.stack([r[k] for r in records]) for k in ("image", "label")}

    def key(self, index: int) -> str:
        return f"fake/{index}"
