"""Exact and near duplicates of pictures: difference hashes, looked up in bands, then compared.

A ``Print`` of 128 bits has two bits per place: whether the picture gets lighter to the right, and
downwards. Two prints that differ in at most ``MAX_BITS`` bits agree in at least one of eight
bands of 16 bits, so that looking up bands finds every such pair without comparing all pairs.
Pairs are then compared as 16x16 thumbnails, since plain pictures have similar prints.

Source: Krawetz, Kind of Like That (difference hash), 2013; banding as in Manku et al., Detecting
Near-Duplicates for Web Crawling, 2007.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from PIL import Image

BANDS = 8
MAX_BITS = BANDS - 1
MAX_DIFFERENCE = 8.0
"""Largest mean absolute difference of the thumbnails of a pair, of 255."""
MAX_BUCKET = 300
_SIDE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Print:
    """The fingerprint of a picture.

    Attributes:
      bands: uint16 (8,), the 128 bits of the hash.
      thumb: uint8 (16, 16, 3).
      digest: of size and every pixel.
    """

    bands: np.ndarray
    thumb: np.ndarray
    digest: bytes


@dataclasses.dataclass(frozen=True)
class DuplicateGroup:
    """Pictures that are linked by pairs of duplicates; ``exact`` when all pixels are equal.

    Attributes:
      members: numbers of the pictures.
      exact: all pixels are equal.
    """

    members: tuple[int, ...]
    exact: bool


def print_of(pixels: np.ndarray) -> Print:
    """The print of an image uint8 [H, W, C] with 1 or 3 channels."""
    flat = np.ascontiguousarray(pixels)
    digest = hashlib.blake2b(repr(flat.shape).encode() + flat.tobytes(), digest_size=16).digest()
    image = Image.fromarray(flat[:, :, 0] if flat.shape[2] == 1 else flat)
    grey = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BILINEAR), np.int16)
    across = grey[:8, 1:] > grey[:8, :-1]
    down = grey[1:, :8] > grey[:-1, :8]
    bands = np.packbits(np.stack([across, down])).view(">u2").astype(np.uint16)
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return Print(bands, np.asarray(small), digest)


def find(
    prints: list[Print], max_difference: float = MAX_DIFFERENCE
) -> tuple[list[DuplicateGroup], int]:
    """Groups of duplicates, in the order of their first members, and how many pairs were skipped.

    Pictures that share a band with more than ``MAX_BUCKET`` others are compared with the nearest
    of these only, by the thumbnails' mean brightness; the rest counts as skipped.
    """
    if not prints:
        return [], 0
    parent = list(range(len(prints)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes, int] = {}
    for i, each in enumerate(prints):
        parent[i] = first.setdefault(each.digest, i)
    alone = np.array(sorted(first.values()))
    bands = np.stack([prints[i].bands for i in alone])
    thumbs = np.stack([prints[i].thumb for i in alone]).reshape(len(alone), -1)
    pairs, skipped = _candidates(bands, thumbs.mean(1))
    left, right = pairs[:, 0], pairs[:, 1]
    bits = np.bitwise_count(bands[left] ^ bands[right]).sum(1)
    left, right = left[bits <= MAX_BITS], right[bits <= MAX_BITS]
    for start in range(0, len(left), 4096):
        a, b = left[start : start + 4096], right[start : start + 4096]
        difference = np.abs(thumbs[a].astype(np.int16) - thumbs[b]).mean(1)
        for i, j in zip(
            a[difference <= max_difference], b[difference <= max_difference], strict=True
        ):
            low, high = sorted((root(int(alone[i])), root(int(alone[j]))))
            parent[high] = low
    groups: dict[int, list[int]] = {}
    for i in range(len(prints)):
        groups.setdefault(root(i), []).append(i)
    duplicated = [members for members in groups.values() if len(members) > 1]
    return [
        DuplicateGroup(tuple(members), len({prints[i].digest for i in members}) == 1)
        for members in duplicated
    ], skipped


def _candidates(bands: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, int]:
    """Pairs (P, 2), each once, that share a band; and how many were left out."""
    count, skipped = len(bands), 0
    codes = [np.zeros(0, np.int64)]
    for band in bands.T:
        order = np.lexsort((brightness, band))
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, edges):
            size = len(bucket)
            if size < 2:
                continue
            for step in range(1, min(size, MAX_BUCKET + 1)):
                low = np.minimum(bucket[:-step], bucket[step:]).astype(np.int64)
                high = np.maximum(bucket[:-step], bucket[step:])
                codes.append(low * count + high)
            beyond = max(0, size - 1 - MAX_BUCKET)
            skipped += beyond * (beyond + 1) // 2
    unique = np.unique(np.concatenate(codes))
    return np.stack([unique // count, unique % count], 1), skipped
