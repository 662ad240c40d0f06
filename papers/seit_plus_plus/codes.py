"""Images stored as packed codebook ids, and read as the codebook's vectors."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.ops.base import Example
from vision.data.source import DataError


def bits_of(codes: int) -> int:
    """Number of bits of an id in 0..codes - 1."""
    return max(1, math.ceil(math.log2(codes)))


def pack_ids(ids: np.ndarray, bits: int) -> np.ndarray:
    """Packs the lowest bits of integers (N, M) into uint8 (N, ceil(M bits / 8)).

    Raises:
      ValueError: an id that needs more bits, or is negative.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= 2**bits):
        raise ValueError(f"ids lie in {ids.min()}..{ids.max()}; {bits} bits hold 0..{2**bits - 1}")
    shifts = np.arange(bits - 1, -1, -1)
    flags = (ids.astype(np.int64)[..., None] >> shifts) & 1
    return np.packbits(flags.reshape(len(ids), -1).astype(np.uint8), axis=1)


def unpack_ids(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Inverse of ``pack_ids``, int32 (..., count).

    Raises:
      ValueError: a number of bytes that does not fit ``count`` and ``bits``.
    """
    if packed.dtype != np.uint8 or packed.shape[-1] != -(-count * bits // 8):
        raise ValueError(
            f"{count} ids of {bits} bits are {-(-count * bits // 8)} bytes, not "
            f"{packed.dtype}[{packed.shape[-1]}]"
        )
    flags = np.unpackbits(packed, axis=-1, count=count * bits)
    flags = flags.reshape(*packed.shape[:-1], count, bits).astype(np.int32)
    return flags @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int32))


@dataclasses.dataclass(frozen=True)
@checked
class FromCodes:
    """Packed ids to ``ids`` int32 [h, w] and ``image`` float32 [h, w, d], their vectors.

    Attributes:
      codebook: ``.npy`` file, float (K, d).
      height, width: of the grid.
      key: name of the packed ids.
    """

    codebook: str
    height: Positive[int]
    width: Positive[int]
    key: str = "ids"

    @functools.cached_property
    def _vectors(self) -> np.ndarray:
        return read_codebook(self.codebook)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.key not in example:
            raise ValueError(f"FromCodes: no feature {self.key!r} among {', '.join(example)}")
        vectors, count = self._vectors, self.height * self.width
        ids = unpack_ids(np.asarray(example[self.key]), bits_of(len(vectors)), count)
        if ids.max() >= len(vectors):
            raise DataError(
                f"{self.key} has {ids.max()}, but {self.codebook} {len(vectors)} entries"
            )
        ids = ids.reshape(self.height, self.width)
        return {**example, "ids": ids, "image": vectors[ids]}


def read_codebook(path: str) -> np.ndarray:
    """float32 (K, d) of a ``.npy`` file.

    Raises:
      DataError: it cannot be read, or holds something else.
    """
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no readable .npy array: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(f"{path}: a codebook is float (K, d), not {vectors.dtype}{vectors.shape}")
    return vectors.astype(np.float32)
