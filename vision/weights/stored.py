"""Tensors that lie in a file, read when they are indexed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision.weights.mapping import Tensor, WeightsError


@dataclasses.dataclass(frozen=True)
class Weights(Mapping[str, Tensor]):
    """Tensors of a file or a folder by name; data is read when a tensor is indexed.

    Attributes:
      source: the file or folder, for messages.
      tensors: name to tensor.
      metadata: texts that the file carries about itself.
    """

    source: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file, row by row.

    Attributes:
      path: the file.
      name: of the tensor, for messages.
      dtype, shape: of the tensor.
      start: offset of its bytes in the file.
    """

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads the rows that the first of the slices asks for, and cuts the others out."""
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if not self.shape or not isinstance(first, slice) or first.step not in (None, 1):
            return self._rows(0, self.shape[0] if self.shape else 1).reshape(self.shape)[index]
        begin, end, _ = first.indices(self.shape[0])
        return self._rows(begin, max(begin, end))[(slice(None), *rest)]

    def _rows(self, begin: int, end: int) -> np.ndarray:
        row = math.prod(self.shape[1:])
        count = (end - begin) * row
        offset = self.start + begin * row * self.dtype.itemsize
        try:
            flat = np.fromfile(self.path, np.uint8, count * self.dtype.itemsize, offset=offset)
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error}") from error
        if flat.size != count * self.dtype.itemsize:
            raise WeightsError(f"{self.path} ends inside tensor {self.name}: it has been changed")
        return flat.view(self.dtype).reshape(end - begin, *self.shape[1:])


@dataclasses.dataclass(frozen=True)
class Strided:
    """A tensor whose elements do not lie row by row: a transposed, sliced or expanded view.

    Attributes:
      path, name, dtype, shape: as of ``Stored``.
      strides: elements of the file from one index of an axis to the next; none is negative.
      start: offset in the file of the first element.
    """

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads what lies between the first and the last element, and cuts the view out."""
        count = extent(self.shape, self.strides)
        flat = Stored(self.path, self.name, self.dtype, (count,), self.start)[...]
        strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)
        return view[index]


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """The number of elements from the first to the last of a view, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements of a view lie one after another, row by row."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
