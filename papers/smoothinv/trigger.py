"""Backdoors: a trigger that is put on images, and data of which a share carries it to a class."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Fraction, NonNegative, checked
from vision.data.all_records import feature_of, names_of
from vision.data.decode import decode
from vision.data.fingerprint import content
from vision.data.source import Source, SourceInfo


@dataclasses.dataclass(frozen=True)
@checked
class Trigger:
    """What is put on an image, as BiBadDiff and its sources poison: a patch, or a blended pattern.

    ``patch``: a white square in the lower right corner (BadNets, Gu et al. 2017). ``blend``: the
    image times 1 - ``alpha`` and a fixed pattern of uniform noise times ``alpha`` (Chen et al.
    2017).

    Attributes:
      kind: ``patch`` or ``blend``.
      side: of the patch, as a share of the shorter side of the image; at least a pixel.
      alpha: of the pattern.
      seed: of the pattern.
    """

    kind: Literal["patch", "blend"] = "patch"
    side: Fraction = 0.1
    alpha: Fraction = 0.2
    seed: int = 0

    def mask(self, height: int, width: int) -> np.ndarray:
        """Pixels that it changes, bool (H, W)."""
        if self.kind == "blend":
            return np.ones((height, width), bool)
        side = max(1, round(self.side * min(height, width)))
        mask = np.zeros((height, width), bool)
        mask[height - side :, width - side :] = True
        return mask

    def stamped(self, image: np.ndarray) -> np.ndarray:
        """Images (..., H, W, C), float in 0..1 or uint8, with the trigger; the same dtype."""
        if image.dtype == np.uint8:
            return np.round(255 * self.stamped(image / 255)).astype(np.uint8)
        height, width, channels = image.shape[-3:]
        if self.kind == "patch":
            return np.where(self.mask(height, width)[:, :, None], 1, image).astype(image.dtype)
        pattern = np.random.default_rng(self.seed).random((height, width, channels))
        return ((1 - self.alpha) * image + self.alpha * pattern).astype(image.dtype)


@dataclasses.dataclass(frozen=True)
@checked
class Poisoned:
    """The records of ``source``, of which a share has the trigger and the label of the target.

    Chosen are records of other classes, by the seed. Their number is the share of these, rounded.

    Attributes:
      source: where the records are; images are arrays (H, W, C) or encoded files.
      trigger: what the chosen ones get.
      target: the class that they are called.
      rate: share of the records of other classes, 0..1.
      seed: of the choice.
      label: feature with the class.

    Raises:
      ValueError: on first use, when the target is no class of the source.
    """

    source: Source
    trigger: Trigger
    target: NonNegative[int] = 0
    rate: Fraction = 0.1
    seed: int = 0
    label: str = "label"

    @functools.cached_property
    def poisoned(self) -> np.ndarray:
        """bool (N,): which records carry the trigger."""
        classes = self.source.info.num_classes
        if classes and self.target >= classes:
            raise ValueError(
                f"target={self.target}, but classes of {self.source.info.name} are 0..{classes - 1}"
            )
        labels = np.asarray(feature_of(self.source, self.label))
        others = np.flatnonzero(labels != self.target)
        order = np.random.default_rng(self.seed).permutation(others)
        chosen = np.zeros(len(labels), bool)
        chosen[order[: round(self.rate * len(others))]] = True
        return chosen

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        return dataclasses.replace(info, name=f"{info.name}/poisoned")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source[index]
        if not self.poisoned[index]:
            return record
        image = record["image"]
        pixels = decode(bytes(image)) if isinstance(image, bytes | bytearray) else np.asarray(image)
        target = np.asarray(self.target, np.asarray(record[self.label]).dtype)
        return {**record, "image": self.trigger.stamped(pixels), self.label: target}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records."""
        values = list(feature_of(self.source, feature))
        if feature != self.label:
            return values
        return [self.target if hit else x for hit, x in zip(self.poisoned, values, strict=True)]

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return names_of(self.source, feature)

    def fingerprint(self) -> str:
        """Changes with the arguments and with the source's content."""
        return content(self)

    def key(self, index: int) -> str:
        return self.source.key(index)
