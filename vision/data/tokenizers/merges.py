"""Applying byte-pair merges, shared by the byte-pair tokenizers.

Source: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

Merges = Mapping[tuple[int, int], int]
"""Pair of ids to the id that replaces it. Earlier merges have smaller ids, so that the smallest
result is the merge to do first."""


def merge(ids: Sequence[int], merges: Merges) -> list[int]:
    """``ids`` after all merges, earliest first, each from left to right.

    Takes n log n steps for n ids, so that a text without spaces costs no more than any other.
    """
    symbols, count = list(ids), len(ids)
    following, before = list(range(1, count + 1)), list(range(-1, count - 1))
    heap = [(merges[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in merges]
    heapq.heapify(heap)
    while heap:
        new, i = heapq.heappop(heap)
        j = following[i]
        # An entry is stale when a neighbour took part in another merge meanwhile.
        if j >= count or merges.get((symbols[i], symbols[j])) != new:
            continue
        symbols[i], symbols[j] = new, -1
        after = following[i] = following[j]
        if after < count:
            before[after] = i
            if (result := merges.get((new, symbols[after]))) is not None:
                heapq.heappush(heap, (result, i))
        if (left := before[i]) >= 0 and (result := merges.get((symbols[left], new))) is not None:
            heapq.heappush(heap, (result, left))
    return [symbol for symbol in symbols if symbol >= 0]
