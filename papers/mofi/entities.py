"""Finding entities of a knowledge base in texts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vision.data.ops.base import Example, noted


class EntityLinker(Protocol):
    """Finds entities of a knowledge base in a text."""

    def link(self, text: str) -> tuple[int, ...]:
        """Their numbers, each once, in the order of the text."""
        ...


@dataclasses.dataclass(frozen=True)
class Gazetteer:
    """Links the names of entities where they stand word for word; of two that overlap the longer.

    Attributes:
      names: of the entities, by number; words in lower case with single spaces between.
    """

    names: tuple[str, ...]

    @functools.cached_property
    def _numbers(self) -> dict[tuple[str, ...], int]:
        return {tuple(name.split()): number for number, name in enumerate(self.names)}

    def link(self, text: str) -> tuple[int, ...]:
        words = tuple(word.strip(".,;:!?") for word in text.lower().split())
        longest = max(map(len, self._numbers), default=0)
        found: dict[int, None] = {}
        start = 0
        while start < len(words):
            ends = range(min(start + longest, len(words)), start, -1)
            end = next((end for end in ends if words[start:end] in self._numbers), None)
            if end is not None:
                found[self._numbers[words[start:end]]] = None
            start = end or start + 1
        return tuple(found)


@dataclasses.dataclass(frozen=True)
class Link:
    """Labels a record with one of the entities in its text, drawn; -1 where there is none.

    Attributes:
      linker: finds them.
      feature: one text; it stays.
      output: name of the label, int32.
    """

    linker: EntityLinker
    feature: str = "caption"
    output: str = "label"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        found = self.linker.link(str(example[self.feature]))
        entity = found[int(rng.integers(len(found)))] if found else -1
        return noted({**example, self.output: np.int32(entity)}, "Link", entities=found)


def linked(texts: Sequence[str], linker: EntityLinker) -> np.ndarray:
    """Pairs int64 (P, 2) of the number of a text and an entity in it."""
    pairs = [(i, entity) for i, text in enumerate(texts) for entity in linker.link(text)]
    return np.asarray(pairs, np.int64).reshape(-1, 2)
