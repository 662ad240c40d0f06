"""Typed columns that describe an image: texts, captions, hierarchies, attributes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.cells import Cell, as_list, as_mapping, as_text, as_texts, is_missing
from vision.data.columns import ImageSize, Row, SingleColumn
from vision.data.labels import Vocabulary, is_unlabelled, label_text, refuse_twins
from vision.data.source import DataError


@dataclasses.dataclass(frozen=True)
class Text(SingleColumn):
    """One text, as it is: ``str``, for a tokenizer.

    Attributes:
      column: in the table; empty when it is called like the feature.
      optional: whether a cell may be missing; it is then the empty text.
    """

    column: str = ""
    optional: bool = False

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        if cell is None or cell == "":
            if not self.optional:
                raise DataError("is missing")
            return {feature: ""}
        return {feature: as_text(cell)}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: "string"}


@dataclasses.dataclass(frozen=True)
class Captions(SingleColumn):
    """One or more texts about the image: a tuple of ``str``, of any length but 0.

    Attributes:
      column: in the table; empty when it is called like the feature. A list of texts, or one text:
        text that is a JSON list of texts is a list, and any other text is a caption as it stands.
      separator: between texts, where the cell is text and not a JSON list of texts; empty keeps
        it whole.
    """

    column: str = ""
    separator: str = ""

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        texts = () if cell is None else as_texts(cell, self.separator)
        captions = tuple(as_text(text) for text in texts if not (text is None or text == ""))
        if not captions:
            raise DataError("holds no caption")
        return {feature: captions}

    def describe(self, feature: str) -> dict[str, str]:
        return {feature: "tuple of strings"}


@dataclasses.dataclass(frozen=True)
@checked
class HierarchyText(SingleColumn):
    """A path from the root of a tree, ``animal/dog/poodle``: int32[L], -1 below where it ends.

    Entry l is the node's index in ``nodes[l]``, where nodes are called by their whole path, so
    that two species of one name in different genera stay apart.

    Attributes:
      levels: L, the depth of the tree.
      nodes: per level, the paths in label order, joined with ``separator``; empty takes those in
        the table, sorted.
      column: in the table; empty when it is called like the feature. A path, or a list of names.
      separator: between the names of a path.
    """

    levels: Positive[int]
    nodes: tuple[tuple[str, ...], ...] = ()
    column: str = ""
    separator: NonEmpty[str] = "/"

    def __post_init__(self) -> None:
        if self.nodes and len(self.nodes) != self.levels:
            raise ValueError(f"nodes has {len(self.nodes)} levels but levels={self.levels}")

    @property
    def learned(self) -> bool:
        return bool(self.nodes)

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> HierarchyText:
        nodes: list[dict[str, str]] = [{} for _ in range(self.levels)]
        for place, cell in cells:
            if not is_missing(cell):
                # A path that is too long or has a gap is an error of its record, found on reading.
                for level, node in enumerate(self._paths(cell)[: self.levels]):
                    nodes[level].setdefault(node, place)
        if not nodes[0]:
            return self
        for level in nodes:
            refuse_twins((place, node) for node, place in level.items())
        return dataclasses.replace(self, nodes=tuple(tuple(sorted(level)) for level in nodes))

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        if is_missing(cell):
            raise DataError("is missing")
        paths = self._paths(cell)
        if len(paths) > self.levels:
            raise DataError(f"{paths[-1]!r} is deeper than levels={self.levels}")
        codes = np.full(self.levels, -1, np.int32)
        if not paths:
            raise DataError("is missing")
        for level, node in enumerate(paths):
            if node.endswith(self.separator) or node.startswith(self.separator):
                raise DataError(f"{paths[-1]!r} has an empty name in it")
            codes[level] = self._vocabularies[level].index(node, numbers=False)
        return {feature: codes}

    def _paths(self, cell: Cell) -> list[str]:
        names = cell.split(self.separator) if isinstance(cell, str) else as_list(cell, "")
        texts = [label_text(name).strip() for name in names]
        while texts and texts[-1] == "-1":  # the padding that this type gives, or no label
            texts.pop()
        return [self.separator.join(texts[: i + 1]) for i in range(len(texts))]

    @functools.cached_property
    def _vocabularies(self) -> tuple[Vocabulary, ...]:
        return tuple(Vocabulary(nodes) for nodes in self.nodes)

    def describe(self, feature: str) -> dict[str, str]:
        counts = "/".join(str(len(level)) for level in self.nodes)
        return {feature: f"int32[{self.levels}], {counts} nodes per level, -1 padded"}


@dataclasses.dataclass(frozen=True)
@checked
class Attributes(SingleColumn):
    """Named properties with one value each: int32[A], -1 where unknown.

    The cell maps attributes to values: a mapping, JSON, or ``colour=red|size=big``. An attribute
    that it leaves out, or gives null, is unknown; an attribute or value not listed is an error.

    Attributes:
      values: attribute name to its values in label order; A attributes, in this order.
      column: in the table; empty when it is called like the feature.
    """

    values: NonEmpty[Mapping[str, tuple[str, ...]]]
    column: str = ""

    @functools.cached_property
    def _vocabularies(self) -> dict[str, Vocabulary]:
        return {name: Vocabulary(tuple(values)) for name, values in self.values.items()}

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = self.cell(feature, row)
        properties = {} if is_missing(cell) else as_mapping(cell)
        unknown = sorted(properties.keys() - self.values.keys())
        if unknown:
            raise DataError(f"{unknown[0]!r} is none of the attributes {list(self.values)}")
        codes = np.full(len(self.values), -1, np.int32)
        for i, (name, vocabulary) in enumerate(self._vocabularies.items()):
            value = properties.get(name)
            if not is_unlabelled(value, vocabulary.names):
                codes[i] = vocabulary.index(value, numbers=False)
        return {feature: codes}

    def describe(self, feature: str) -> dict[str, str]:
        names = ", ".join(self.values)
        return {feature: f"int32[{len(self.values)}], -1 unknown: {names}"}
