"""A source of bags of another source's records, with one label per bag."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from vision.config.ranges import NonNegative, Positive, checked
from vision.data.all_records import labels_of
from vision.data.fingerprint import content
from vision.data.source import DataError, Source, SourceInfo
from vision.data.table import fields_only


@dataclasses.dataclass(frozen=True)
@checked
class Bags:
    """Bags for multiple instance learning: odd ones have instances of a positive class.

    Bag i is a function of the fields and i alone. It has ``image`` float32 [size, H, W, C], 0..1
    plus noise; ``label`` int32, 1 with positive instances; and ``positive`` bool [size], the mask
    of positive instances. Instances are drawn with replacement.

    Attributes:
      source: uint8 images of one shape, with integer labels.
      num_bags: number of bags.
      size: instances in a bag.
      positive: the class that makes a bag positive.
      present: fewest and most positive instances of a positive bag.
      noise: standard deviation of normal noise on every pixel of every instance.
      seed: of the draws.
    """

    source: Source
    num_bags: Positive[int]
    size: Positive[int] = 20
    positive: int = 1
    present: tuple[Positive[int], Positive[int]] = (1, 3)
    noise: NonNegative[float] = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.present[0] <= self.present[1] <= self.size:
            raise ValueError(f"present={self.present}: fewest <= most <= size={self.size}")

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _pools(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the records of the positive class, and of the others."""
        labels = labels_of(self.source)
        positive = labels == self.positive
        if positive.all() or not positive.any():
            raise DataError(
                f"{self.source.info.name}: bags need records of class {self.positive} and others"
            )
        return np.flatnonzero(positive), np.flatnonzero(~positive)

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        image = info.features.get("image")
        return dataclasses.replace(
            info,
            name=f"bags of {info.name}",
            num_examples=self.num_bags,
            class_names=("absent", "present"),
            features={
                "image": f"float32[{self.size},H,W,C], 0..1 plus noise: {image}",
                "label": "int32, 0..1, whether a positive instance is there",
                "positive": f"bool[{self.size}], which instances are positive",
            },
        )

    def __len__(self) -> int:
        return self.num_bags

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.num_bags:
            raise IndexError(f"bag {index} of {self.num_bags}")
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        label = index % 2
        positive = np.zeros(self.size, bool)
        if label:
            count = rng.integers(self.present[0], self.present[1] + 1)
            positive[rng.permutation(self.size)[:count]] = True
        inside, outside = self._pools
        positives, negatives = (rng.integers(0, len(x), self.size) for x in (inside, outside))
        indices = np.where(positive, inside[positives], outside[negatives])
        image = np.stack([self.source[int(i)]["image"] for i in indices]).astype(np.float32) / 255
        if self.noise:
            image += np.float32(self.noise) * rng.standard_normal(image.shape, np.float32)
        return {"image": image, "label": np.int32(label), "positive": positive}

    def column(self, feature: str) -> np.ndarray:
        """Labels of all bags.

        Raises:
          KeyError: another feature, which is in the bags only.
        """
        return {"label": np.arange(self.num_bags, dtype=np.int32) % 2}[feature]

    def key(self, index: int) -> str:
        return f"{self.info.name}/{index}"

    def fingerprint(self) -> str:
        """Changes with the arguments and the source's content."""
        return content(self)
