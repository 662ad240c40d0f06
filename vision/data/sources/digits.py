"""Scikit-learn's handwritten digits: small, real, and there without a download."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vision.config.ranges import Gt, Lt, checked
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays


@dataclasses.dataclass(frozen=True)
@checked
class Digits:
    """1,797 real handwritten digits of 8x8 pixels, with a fixed stratified split.

    The stored grey levels 0..16 are scaled to 0..255 (``round(255 v / 16)``). The split is a
    function of ``test_fraction`` and ``seed`` alone: from every class, the same share.

    Attributes:
      split: ``train``, ``test``, or ``all``.
      test_fraction: share of every class that is in ``test``, 0..1.
      seed: of the split.
    """

    split: Literal["train", "test", "all"] = "train"
    test_fraction: Annotated[float, Gt(0.0), Lt(1.0)] = 0.2
    seed: int = 0

    @functools.cached_property
    def _records(self) -> Arrays:
        images, labels = _read()
        chosen = np.arange(len(labels))
        if self.split != "all":
            test = _stratified(self.test_fraction, self.seed)
            chosen = np.flatnonzero(test if self.split == "test" else ~test)
        # Copies, of what all sources of this process share.
        return Arrays({"image": images[chosen], "label": labels[chosen]}, f"digits/{self.split}")

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name=f"digits/{self.split}",
            num_examples=len(self),
            class_names=tuple("0123456789"),
            features={"image": "uint8[8,8,1], 0..255", "label": "int32, 0..9"},
            licence="CC BY 4.0",
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998",
            consent="not documented; digits written on forms by 13 people",
            personal_data="no: 8 x 8 pixels of single digits, without names",
            collection="Boğaziçi University, given to UCI in 1998; scanned and reduced to 8 x 8",
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._records[index]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        return self._records.__getitems__(indices)

    def column(self, feature: str) -> np.ndarray:
        """A feature of all records."""
        return self._records.column(feature)

    def key(self, index: int) -> str:
        return self._records.key(index)


@functools.cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8, 1) uint8, labels (1797,) int32."""
    # The file is read where scikit-learn keeps it: importing scikit-learn takes seconds.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits come with scikit-learn: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int32)
    images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return images, table[:, -1]


@functools.lru_cache
def _stratified(fraction: float, seed: int) -> np.ndarray:
    """A mask (1797,) with ``round(fraction * count)`` records of every class."""

    def rank(index: int) -> bytes:  # a hash, since NumPy may change its random streams
        return hashlib.sha256(f"{seed}/{index}".encode()).digest()

    _, labels = _read()
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=rank)
        mask[members[: round(fraction * len(members))]] = True
    return mask
