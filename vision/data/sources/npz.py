"""The arrays of one .npz file: what jobs of a scenario write, or any other program."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from vision.config.repeated import first_repeated
from vision.data import files
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays
from vision.data.table import fields_only

# Of archives: zipfile on damaged ones (BadZipFile; zlib.error and EOFError within a member), on
# encrypted ones (RuntimeError) and kinds of compression that it lacks (NotImplementedError, which
# is a RuntimeError); NumPy on what is no array (ValueError) or announces more than there is memory.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError),
    *(zlib.error, zipfile.BadZipFile),
)


@dataclasses.dataclass(frozen=True)
class Npz:
    """A record per entry of the arrays' first axis; all are read into memory on first use.

    Attributes:
      path: the file.
      features: names of the arrays to read; empty for all.
      class_names: of ``label``, in its order.

    Raises:
      DataError: on first use, when the file cannot be read, lacks an array, or its arrays have
        different lengths. Pickled objects are never read.
    """

    path: str
    features: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _records(self) -> Arrays:
        try:
            with files.opened(self.path) as opened, self._loaded(opened) as file:
                if (repeated := first_repeated(file.files)) is not None:
                    raise DataError(f"{self.path}: the array {repeated!r} is there twice")
                if missing := sorted(set(self.features) - set(file.files)):
                    raise DataError(
                        f"{self.path} has no array {missing[0]!r}; it has {', '.join(file.files)}"
                    )
                arrays = {name: file[name] for name in self.features or file.files}
            return Arrays(arrays, self.path, self.class_names)
        except _UNREADABLE as error:
            raise DataError(
                f"{self.path}: no readable .npz of equally long arrays: {error}"
            ) from error

    def _loaded(self, opened: IO[bytes]) -> np.lib.npyio.NpzFile:
        loaded = np.load(opened, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{self.path}: a single array, and no .npz of several")
        return loaded

    @property
    def info(self) -> SourceInfo:
        return self._records.info

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

    def fingerprint(self) -> str:
        """Changes with the arguments and the file."""
        return content(self, [self.path])
