"""A source with a column that was computed for it: clusters, pseudo-labels, scores."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from vision.data import files
from vision.data.all_records import feature_of, names_of
from vision.data.fingerprint import content
from vision.data.source import DataError, Source, SourceInfo
from vision.data.table import fields_only


@dataclasses.dataclass(frozen=True)
class Computed:
    """The records of ``source`` with one more feature, or another value of one that they have.

    Attributes:
      source: where the records are.
      file: ``.npy`` array (N, ...), one entry per record in the order of the source.
      feature: its name. Values of ``label`` are numbers of the source's classes, -1 for none.

    Raises:
      DataError: on first use, when the file cannot be read or has another number of entries.
    """

    source: Source
    file: str
    feature: str

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def values(self) -> np.ndarray:
        """The file's array (N, ...)."""
        try:
            with files.opened(self.file) as file:
                values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.file}: no readable .npy array: {error}") from error
        if values.ndim < 1 or len(values) != len(self.source):
            raise DataError(
                f"{self.file}: {values.dtype}{list(values.shape)}, but {self.source.info.name} "
                f"has {len(self.source)} records; give one entry for each"
            )
        return values

    @property
    def info(self) -> SourceInfo:
        info, values = self.source.info, self.values
        described = f"{values.dtype}{list(values.shape[1:])}, computed"
        return dataclasses.replace(info, features={**info.features, self.feature: described})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], self.feature: self.values[index]}

    def column(self, feature: str) -> Any:
        """A feature of all records."""
        return self.values if feature == self.feature else feature_of(self.source, feature)

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        if feature == self.feature and feature != "label":
            return ()
        return names_of(self.source, feature)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def fingerprint(self) -> str:
        """Changes with the arguments, the file, and the source's content."""
        return content(self, [self.file])
