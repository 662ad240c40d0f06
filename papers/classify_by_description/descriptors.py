"""Descriptors of classes: their sentences, and the mean of those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WHICH = ("has", "often", "typically", "may", "can")
_WHICH_IS = ("a", "an", "used")


def sentence(name: str, descriptor: str) -> str:
    """What the text tower reads of a descriptor: ``"lemur, which has long tail"``."""
    first = descriptor.split(" ", 1)[0]
    verb = "which is" if first in _WHICH_IS else "which" if first in _WHICH else "which has"
    return f"{name}, {verb} {descriptor}"


def class_vectors(vectors: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """m (K, D): means of the first ``counts[0]`` rows of ``vectors`` (N, D), of the next, ..."""
    starts = np.cumsum([0, *counts[:-1]])
    return np.add.reduceat(vectors, starts, 0) / np.asarray(counts, vectors.dtype)[:, None]
