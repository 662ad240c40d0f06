"""Retrieval with off-the-shelf features: PCA, whitening, signed square root, patch distances."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.evaluators.image_text.embeddings import normalised
from vision.probes.whitening import Whitening, fit_whitening, signed_root


@dataclasses.dataclass(frozen=True, eq=False)
class Descriptor:
    """Features after PCA, whitening and signed square root; fitted on images outside the gallery.

    Attributes:
      whitening: PCA and whitening.
    """

    whitening: Whitening

    @classmethod
    def fit(cls, x: np.ndarray, dimension: int = 500) -> Descriptor:
        """Fits the whitening to features (N, D), none of them zero."""
        return cls(fit_whitening(normalised(x), dimension))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(..., D) to (..., dimension)."""
        return signed_root(normalised(self.whitening(normalised(x))))


def patch_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean over a query's patches of the distance to the nearest patch of a reference.

    Args:
      queries: (Q, P, D) descriptors of P patches each.
      references: (R, S, D).

    Returns:
      (Q, R).
    """
    distances = np.empty((len(queries), len(references)), np.float32)
    for i, query in enumerate(queries):
        squared = np.square(query[None, :, None] - references[:, None]).sum(-1)
        distances[i] = np.sqrt(squared.min(2)).mean(1)
    return distances
