"""A byte-pair tokenizer that is trained here, on captions, in seconds."""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np

from vision.config.ranges import Ge, checked
from vision.data import files
from vision.data.source import DataError, Source
from vision.data.tokenize import TokenRows, captions_of
from vision.data.tokenizers.merges import merge

FIRST_BYTE = 3
FIRST_MERGE = FIRST_BYTE + 256
FORMAT = "vision byte pairs 1"
_CACHED_WORDS = 2**16
# Every character of a text is in exactly one piece; a piece takes the space before it along.
_PIECES = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+")


@dataclasses.dataclass(frozen=True, repr=False)
@checked
class BytePairTokenizer(TokenRows):
    """Byte-level byte pairs: any text, nothing unknown, nothing lost.

    ``join(split(text)) == text``. Ids are 0 pad, 1 bos, 2 eos, the 256 bytes, then one per
    merge. No text spells a special token.

    Attributes:
      merges: pairs of ids, in the order of training.
      length: tokens of a row.
    """

    merges: tuple[tuple[int, int], ...]
    length: Annotated[int, Ge(3)] = 32

    def __post_init__(self) -> None:
        for i, pair in enumerate(self.merges):
            if len(pair) != 2 or not all(FIRST_BYTE <= part < FIRST_MERGE + i for part in pair):
                raise ValueError(f"merges[{i}]={pair}: a pair of ids that exist before it")

    def __repr__(self) -> str:
        return f"BytePairTokenizer({self.vocab_size} ids, length={self.length})"

    @property
    def vocab_size(self) -> int:
        return FIRST_MERGE + len(self.merges)

    def split(self, text: str) -> list[int]:
        return [token for piece in _PIECES.findall(text) for token in self._piece(piece)]

    def join(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="replace")

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """What every id spells."""
        spelled = [b""] * FIRST_BYTE + [bytes([byte]) for byte in range(256)]
        for left, right in self.merges:
            spelled.append(spelled[left] + spelled[right])
        return spelled

    @functools.cached_property
    def _piece(self) -> Callable[[str], tuple[int, ...]]:
        merges = {(a, b): FIRST_MERGE + i for i, (a, b) in enumerate(self.merges)}

        @functools.lru_cache(_CACHED_WORDS)
        def piece(text: str) -> tuple[int, ...]:
            return tuple(merge([FIRST_BYTE + byte for byte in text.encode("utf-8")], merges))

        return piece


def train_byte_pair(
    texts: Iterable[str], vocab_size: int = 1024, length: int = 32, least_count: int = 2
) -> BytePairTokenizer:
    """The tokenizer that merges the most frequent pair of neighbours, again and again.

    The same texts, in any order, give the same tokenizer: of equally frequent pairs the one with
    the smaller ids comes first.

    Args:
      texts: what to learn from.
      vocab_size: most ids, at least 259; fewer when no pair is left that is frequent enough.
      length: tokens of a row of the result.
      least_count: pairs seen less often are not merged.
    """
    if vocab_size < FIRST_MERGE:
        raise ValueError(f"vocab_size={vocab_size}: at least {FIRST_MERGE}, the bytes and specials")
    if least_count < 1:
        raise ValueError(f"least_count={least_count}: must be at least 1")
    counts = collections.Counter(piece for text in texts for piece in _PIECES.findall(text))
    pieces = sorted(counts)
    symbols = [[FIRST_BYTE + byte for byte in piece.encode("utf-8")] for piece in pieces]
    weights = [counts[piece] for piece in pieces]
    pairs: collections.Counter[tuple[int, int]] = collections.Counter()
    where: dict[tuple[int, int], set[int]] = collections.defaultdict(set)
    for number, piece in enumerate(symbols):
        for pair in pairwise(piece):
            pairs[pair] += weights[number]
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and FIRST_MERGE + len(merges) < vocab_size:
        count, best = heapq.heappop(heap)
        if -count != pairs[best]:  # the count has changed: the pair is in the heap once more
            continue
        if -count < least_count:
            break
        new = FIRST_MERGE + len(merges)
        merges.append(best)
        changed = set()
        for number in where.pop(best):
            for pair in pairwise(symbols[number]):
                pairs[pair] -= weights[number]
                changed.add(pair)
            symbols[number] = merge(symbols[number], {best: new})
            for pair in pairwise(symbols[number]):
                pairs[pair] += weights[number]
                where[pair].add(number)
                changed.add(pair)
        for pair in changed:
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
    return BytePairTokenizer(tuple(merges), length)


def train_on_source(
    source: Source,
    feature: str = "caption",
    vocab_size: int = 1024,
    length: int = 32,
    examples: int = 2000,
) -> BytePairTokenizer:
    """``train_byte_pair`` on the captions of ``examples`` records spread evenly over a source.

    Raises:
      DataError: a record has no usable caption; it is named.
    """
    if examples < 1:
        raise ValueError(f"examples={examples}: must be at least 1")
    chosen = np.unique(np.linspace(0, len(source) - 1, min(examples, len(source))).astype(int))
    texts: list[str] = []
    for index in chosen.tolist():
        record = source[index]
        if feature not in record:
            names = ", ".join(sorted(record))
            raise DataError(f"{source.key(index)}: no feature {feature!r} among {names}")
        try:
            texts += captions_of(record[feature], feature)
        except DataError as error:
            raise DataError(f"{source.key(index)}: {error}") from error
    return train_byte_pair(texts, vocab_size, length)


def save_byte_pair(tokenizer: BytePairTokenizer, path: str | os.PathLike[str]) -> None:
    """Writes the merges as JSON; the same tokenizer gives the same file."""
    text = json.dumps({"format": FORMAT, "merges": [list(pair) for pair in tokenizer.merges]})
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_byte_pair(path: str, length: int = 32) -> BytePairTokenizer:
    """The tokenizer of a file that ``save_byte_pair`` wrote, for rows of ``length``.

    Raises:
      DataError: the file is missing, or is none of ours.
    """
    try:
        content = json.loads(files.read_bytes(path).decode("utf-8"))
    except DataError as error:
        raise DataError(f"{error}; save_byte_pair writes such a file") from error
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not written by save_byte_pair (no format {FORMAT!r})")
    merges = content.get("merges")
    if not isinstance(merges, list) or not all(
        isinstance(pair, list) and all(type(part) is int for part in pair) for pair in merges
    ):
        raise DataError(f"{path}: 'merges' is not a list of pairs of ids")
    try:
        return BytePairTokenizer(tuple((*pair,) for pair in merges), length)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
