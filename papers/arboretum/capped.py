"""Records of species that are frequent enough, and of none too many; or of the rare ones."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np

from vision.config.ranges import NonNegative, Positive, checked
from vision.data.all_records import feature_of
from vision.data.source import DataError, Source, SourceInfo
from vision.data.sources.splits import Selected


@dataclasses.dataclass(frozen=True)
@checked
class CappedClasses(Selected):
    """At most ``most`` records of every class that has ``least`` or more; or all of the rare ones.

    Attributes:
      source: where the records are.
      least: records of a class that is learned from.
      most: records that are kept of a class; others are left out at random.
      part: ``train``, or ``rare`` for all records of classes with fewer than ``least``.
      feature: the label, an integer per record; records with -1 are in neither part.
      seed: of what is left out.

    Raises:
      DataError: on first use, when no record is left.
    """

    source: Source
    least: Positive[int] = 10
    most: Positive[int] = 1000
    part: Literal["train", "rare"] = "train"
    feature: str = "label"
    seed: NonNegative[int] = 0

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        labels = np.asarray(feature_of(self.source, self.feature), np.int64)
        known = np.flatnonzero(labels >= 0)
        counts = np.bincount(labels[known], minlength=1)
        frequent = counts[labels[known]] >= self.least
        chosen = known[frequent if self.part == "train" else ~frequent]
        if not len(chosen):
            most = int(counts.max())
            fewest = int(counts[counts > 0].min(initial=most))
            raise DataError(
                f"{self.source.info.name}: part={self.part!r} is empty: {(counts > 0).sum()} "
                f"classes have {fewest} to {most} records, and least={self.least}"
            )
        if self.part == "rare":
            return chosen
        # By class, then at random; the first ones of each class are kept.
        order = np.random.default_rng(self.seed).permutation(len(chosen))
        order = order[np.argsort(labels[chosen[order]], kind="stable")]
        sorted_labels = labels[chosen[order]]
        place = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
        return np.sort(chosen[order[place < self.most]])

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        return dataclasses.replace(info, name=f"{info.name}/{self.part}", num_examples=len(self))
