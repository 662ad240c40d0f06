"""Oracles that label records on request."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


class Oracle(Protocol):
    """Source of labels: a person, or in experiments the held-back ground truth."""

    def label(self, ids: np.ndarray) -> np.ndarray:
        """Labels int (n,) of records ``ids`` (n,); deterministic."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HeldBack:
    """An oracle with the ground truth and a share of label noise.

    Attributes:
      truth: int (N,).
      num_classes: K.
      noise: share of the records whose label is replaced by another class, drawn uniformly.
      seed: of the noise.
    """

    truth: np.ndarray
    num_classes: int
    noise: float = 0.0
    seed: int = 0

    def label(self, ids: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        wrong = rng.random(len(self.truth)) < self.noise
        flipped = (self.truth + rng.integers(1, self.num_classes, len(wrong))) % self.num_classes
        return np.where(wrong, flipped, self.truth)[ids]
