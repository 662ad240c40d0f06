"""Entities of a knowledge base: linking in texts, and filtering of image-entity pairs."""

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
        """Indices of the entities, each once, in the order of the text."""
        ...


@dataclasses.dataclass(frozen=True)
class Gazetteer:
    """Links entities by exact match of their names; of overlapping matches the longest.

    Attributes:
      names: of the entities, by index; words in lower case, separated by single spaces.
    """

    names: tuple[str, ...]

    @functools.cached_property
    def _numbers(self) -> dict[tuple[str, ...], int]:
        return {tuple(name.split()): number for number, name in enumerate(self.names)}

    def link(self, text: str) -> tuple[int, ...]:
        words = tuple(word.strip(".,;:!?") for word in text.lower().split())
        longest = max(map(len, self._numbers), default=0)
        entities: dict[int, None] = {}
        start = 0
        while start < len(words):
            ends = range(min(start + longest, len(words)), start, -1)
            end = next((end for end in ends if words[start:end] in self._numbers), None)
            if end is not None:
                entities[self._numbers[words[start:end]]] = None
            start = end or start + 1
        return tuple(entities)


@dataclasses.dataclass(frozen=True)
class Link:
    """Sets ``label`` to a random one of the entities in ``caption``, int32; -1 without any.

    Attributes:
      linker: finds the entities.
    """

    linker: EntityLinker

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        entities = self.linker.link(str(example["caption"]))
        entity = entities[int(rng.integers(len(entities)))] if entities else -1
        return noted({**example, "label": np.int32(entity)}, "Link", entities=entities)


def linked(texts: Sequence[str], linker: EntityLinker) -> np.ndarray:
    """Pairs int64 (P, 2) of the index of a text and an entity in it."""
    pairs = [(i, entity) for i, text in enumerate(texts) for entity in linker.link(text)]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def depicted(
    pairs: np.ndarray, images: np.ndarray, entities: np.ndarray, threshold: float
) -> np.ndarray:
    """The pairs whose image (N, D) is similar enough to the entity's text (E, D), unit vectors."""
    cosine = np.einsum("pd,pd->p", images[pairs[:, 0]], entities[pairs[:, 1]])
    return pairs[cosine >= threshold]


def frequent(pairs: np.ndarray, fewest: int) -> np.ndarray:
    """The pairs whose entity has at least ``fewest`` images."""
    return pairs[np.bincount(pairs[:, 1], minlength=1)[pairs[:, 1]] >= fewest]
