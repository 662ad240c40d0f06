"""Canvases of four cells with one to three different digits, and a classifier of single digits.

What the classes of a canvas are is known exactly; which of them is *the* label is a matter of
chance, as with photographs that show several things and are given one label.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.data.sources.digits import Digits
from vision.probes.linear import LinearClassifier, fit_logistic

CELLS, CLASSES = 4, 10
Split = Literal["train", "test"]


@dataclasses.dataclass(frozen=True)
class Canvases:
    """N canvases.

    Attributes:
      cells: float32 (N, 4, 64) in 0..1, 8 x 8 pixels each; an empty cell is 0.
      labels: bool (N, 10), the digits that are there.
      label: int64 (N,), one of them at random.
      digits: int64 (N, 4), the digit of every cell, -1 for an empty one.
    """

    cells: np.ndarray
    labels: np.ndarray
    label: np.ndarray
    digits: np.ndarray


def canvases(split: Split, several: float, count: int, seed: int) -> Canvases:
    """Canvases of the digits of a split, each digit of a canvas of another class.

    Args:
      split: ``train`` or ``test``.
      several: share of the canvases with two or three digits; the others have one.
      count: of canvases.
      seed: of all that is drawn.
    """
    records = Digits(split).__getitems__(range(len(Digits(split))))
    pixels = records["image"].reshape(len(records["image"]), -1).astype(np.float32) / 255
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(records["label"] == c) for c in range(CLASSES)]
    cells = np.zeros((count, CELLS, pixels.shape[1]), np.float32)
    labels = np.zeros((count, CLASSES), bool)
    label = np.zeros(count, np.int64)
    digits = np.full((count, CELLS), -1)
    for i in range(count):
        size = int(rng.integers(2, 4)) if rng.random() < several else 1
        classes = rng.choice(CLASSES, size, replace=False)
        places = rng.choice(CELLS, size, replace=False)
        cells[i, places] = pixels[[rng.choice(members[c]) for c in classes]]
        labels[i, classes], digits[i, places] = True, classes
        label[i] = rng.choice(classes)
    return Canvases(cells, labels, label, digits)


def classifier(data: Canvases, decay: float = 1e-3) -> LinearClassifier:
    """A linear classifier of cells, from canvases with one digit each.

    The cell that is not empty is the one with the label.
    """
    single = data.labels.sum(1) == 1
    cells = data.cells[single]
    filled = cells.sum(-1).argmax(1)
    return fit_logistic(cells[np.arange(len(cells)), filled], data.label[single], CLASSES, decay)


def scores(model: LinearClassifier, data: Canvases) -> np.ndarray:
    """(N, 10): of every class its largest logit over the cells."""
    flat = model.logits(data.cells.reshape(-1, data.cells.shape[-1]))
    return flat.reshape(*data.cells.shape[:2], CLASSES).max(1)
