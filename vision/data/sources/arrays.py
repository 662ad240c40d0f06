"""Examples that already are arrays in memory."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision.config.ranges import NonEmpty, checked
from vision.data.fingerprint import hash_value
from vision.data.source import SourceInfo


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
@checked
class Arrays:
    """Equally long arrays, one record per entry of their first axis.

    Whole batches are gathered at once where the pipeline has no per-example ops.

    Attributes:
      arrays: feature name to array [N, ...], for example ``{"image": uint8[N, H, W, C],
        "label": int32[N]}``; encoded images are an object array of bytes.
      name: short name, as in a table.
      class_names: names in label order.
    """

    arrays: NonEmpty[Mapping[str, np.ndarray]]
    name: str = "arrays"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {k: len(v) for k, v in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays have different lengths: {lengths}")

    def __repr__(self) -> str:
        return f"Arrays({self.name!r}, {', '.join(self.arrays)}, {len(self)} records)"

    @property
    def info(self) -> SourceInfo:
        features = {k: f"{v.dtype}{list(v.shape[1:])}" for k, v in self.arrays.items()}
        return SourceInfo(self.name, len(self), self.class_names, features)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {k: copy.copy(v[index]) for k, v in self.arrays.items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        chosen = np.asarray(indices, np.int64)
        return {k: v[chosen] for k, v in self.arrays.items()}

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            hash_value(digest, name, self.arrays[name])
        return digest.hexdigest()

    def column(self, feature: str) -> np.ndarray:
        """A feature of all records."""
        return self.arrays[feature]

    def key(self, index: int) -> str:
        return f"{self.name}/{index}"
