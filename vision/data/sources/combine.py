"""Sources made of sources: joined, cut down, put one after the other, relabelled.

Splits are in ``vision.data.sources.splits``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from vision.config.ranges import NonEmpty, checked
from vision.config.repeated import first_repeated
from vision.data import files
from vision.data.all_records import feature_of, names_of
from vision.data.fingerprint import content
from vision.data.source import CARD, DataError, Source, SourceInfo
from vision.data.sources.splits import Selected, at_indices, valid_index
from vision.data.table import fields_only


@dataclasses.dataclass(frozen=True)
class Subset(Selected):
    """Some records of a source, in the order they are given. Class names stay.

    Exactly one of the last three says which.

    Attributes:
      source: where the records are.
      indices: their positions.
      keys: their names, as ``source.key`` gives them.
      keys_file: a UTF-8 text file with a name per line; empty lines do not count.

    Raises:
      DataError: on first use, when a position or name does not exist or is given twice.
    """

    source: Source
    indices: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    keys_file: str = ""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.indices, self.keys, self.keys_file))) != 1:
            raise ValueError("give one of indices, keys and keys_file, not empty")

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        if self.indices:
            chosen = np.asarray(self.indices, np.int64)
            wrong = chosen[(chosen < 0) | (chosen >= len(self.source))]
            if len(wrong):
                raise DataError(f"indices: no record {wrong[0]} among {len(self.source)}")
        else:
            keys = self.keys
            if self.keys_file:
                text = files.read_bytes(self.keys_file).decode("utf-8", "replace")
                keys = tuple(line for line in text.splitlines() if line.strip())
            places = _places(self.source)
            unknown = [key for key in keys if key not in places]
            if unknown or not keys:
                raise DataError(
                    f"{self.keys_file or 'keys'}: {len(unknown)} of {len(keys)} names are not in "
                    f"{self.source.info.name}, first {unknown[:1]}; its first record is called "
                    f"{self.source.key(0)!r}"
                )
            chosen = np.asarray([places[key] for key in keys], np.int64)
        if len(np.unique(chosen)) < len(chosen):
            index = next(i for i in chosen if (chosen == i).sum() > 1)
            raise DataError(f"record {self.source.key(int(index))!r} is given twice")
        return chosen

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        return dataclasses.replace(info, name=f"{info.name}/subset", num_examples=len(self))

    def fingerprint(self) -> str:
        """Changes with the arguments, the file of names, and the source's content."""
        return content(self, filter(None, [self.keys_file]))


@dataclasses.dataclass(frozen=True)
@checked
class Concat:
    """All records of several sources, one source after the other.

    Attributes:
      sources: those that have class names have the same ones in the same order.
      origin: feature that tells which source a record is from, int32 0..; empty for none.
      name: short name, as in a table; empty joins those of the sources with ``+``.

    Raises:
      DataError: on first use, when class names differ.
    """

    sources: NonEmpty[tuple[Source, ...]]
    origin: str = ""
    name: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where each source begins, and the length of all: int64, one more than sources."""
        infos = [info for info in (source.info for source in self.sources) if info.class_names]
        for info in infos[1:]:
            if info.class_names != infos[0].class_names:
                differing = sorted(set(info.class_names) ^ set(infos[0].class_names))
                raise DataError(
                    f"{info.name} and {infos[0].name} have different classes "
                    f"({differing[:3] if differing else 'in another order'}): wrap them in Relabel"
                )
        return np.cumsum([0, *map(len, self.sources)])

    @property
    def info(self) -> SourceInfo:
        infos = [source.info for source in self.sources]
        features = {k: v for info in reversed(infos) for k, v in info.features.items()}
        if self.origin:
            features[self.origin] = f"int32, 0..{len(infos) - 1}, which source"
        cards = {name: dict.fromkeys(getattr(info, name) for info in infos) for name in CARD}
        return SourceInfo(
            name=self.name or "+".join(info.name for info in infos),
            num_examples=len(self),
            class_names=next((info.class_names for info in infos if info.class_names), ()),
            features=features,
            **{name: "; ".join(filter(None, texts)) for name, texts in cards.items()},
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, at = self._locate(index)
        example = self.sources[source][at]
        return example | {self.origin: np.int32(source)} if self.origin else example

    def column(self, feature: str) -> list[Any]:
        """A feature of all records."""
        if self.origin and feature == self.origin:
            return np.repeat(
                np.arange(len(self.sources), dtype=np.int32), np.diff(self.starts)
            ).tolist()
        return [value for source in self.sources for value in feature_of(source, feature)]

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        names = {names_of(source, feature) for source in self.sources}
        if len(names) > 1:
            raise DataError(
                f"the sources of {self.info.name} number {feature!r} differently; give its column "
                "the same names in all of them"
            )
        return names.pop()

    def fingerprint(self) -> str:
        """Changes with the arguments and with the content of the sources."""
        return content(self)

    def key(self, index: int) -> str:
        source, at = self._locate(index)
        return self.sources[source].key(at)

    def _locate(self, index: int) -> tuple[int, int]:
        source = int(np.searchsorted(self.starts, valid_index(index, self), side="right")) - 1
        return source, int(index - self.starts[source])


@dataclasses.dataclass(frozen=True)
@checked
class Relabel(Selected):
    """The same records under other class names: merged, renamed, or put in another order.

    Attributes:
      source: where the records are.
      mapping: (old name, new name) pairs.
      class_names: the new names in label order; empty for those of the mapping, sorted.
      unmapped: what to do with classes the mapping leaves out: ``error``, or ``drop`` their
        records, whose number is then in ``info``.
      feature: the label: an integer per record.

    Raises:
      DataError: on first use, when an old name does not exist or is not mapped.
    """

    source: Source
    mapping: NonEmpty[tuple[tuple[str, str], ...]]
    class_names: tuple[str, ...] = ()
    unmapped: Literal["error", "drop"] = "error"
    feature: str = "label"

    def __post_init__(self) -> None:
        old = [name for name, _ in self.mapping]
        if (repeated := first_repeated(old)) is not None:
            raise ValueError(f"mapping: {repeated!r} occurs twice")
        unknown = {name for _, name in self.mapping} - set(self._names)
        if unknown:
            raise ValueError(f"mapping: {sorted(unknown)[0]!r} is not among class_names")

    @property
    def _names(self) -> tuple[str, ...]:
        return self.class_names or tuple(sorted({name for _, name in self.mapping}))

    @functools.cached_property
    def _new(self) -> np.ndarray:
        """Old label to new label, -1 for none; one more at the end, for the label -1."""
        info = self.source.info
        mapping = dict(self.mapping)
        unknown = [name for name in mapping if name not in info.class_names]
        if unknown:
            raise DataError(f"{info.name} has no class {unknown[0]!r} to rename; see its info")
        left_out = [name for name in info.class_names if name not in mapping]
        if left_out and self.unmapped == "error":
            raise DataError(
                f"{info.name}: the mapping leaves out {len(left_out)} classes, first "
                f"{left_out[0]!r}; map them, or set unmapped='drop'"
            )
        number = {name: i for i, name in enumerate(self._names)}
        new = [number[mapping[n]] if n in mapping else -1 for n in info.class_names]
        return np.asarray([*new, -1], np.int32)

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        if (self._new[:-1] >= 0).all():
            return np.arange(len(self.source))
        labels = np.asarray(feature_of(self.source, self.feature), np.int64)
        chosen = np.flatnonzero((labels < 0) | (self._new[labels] >= 0))
        if not len(chosen):
            raise DataError(f"{self.source.info.name}: the mapping drops every record")
        return chosen

    @property
    def info(self) -> SourceInfo:
        info = self.source.info
        dropped = len(self.source) - len(self)
        note = f", {dropped} records of other classes dropped" if dropped else ""
        label = f"int32, 0..{len(self._names) - 1}{note}"
        return dataclasses.replace(
            info,
            num_examples=len(self),
            class_names=self._names,
            features={**info.features, self.feature: label},
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        if self.feature not in example:
            raise ValueError(f"Relabel: no feature {self.feature!r}; set Relabel.feature")
        return {**example, self.feature: self._new[int(example[self.feature])]}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records."""
        values = super().column(feature)
        if feature == self.feature:
            values = list(self._new[np.asarray(values, np.int64)])
        return values

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        return self._names if feature == self.feature else super().names(feature)


@dataclasses.dataclass(frozen=True)
@checked
class Joined:
    """The records of ``source`` with the features that ``sidecar`` has for them.

    Records belong together when ``source.key(i)``, after ``prefix``, is ``sidecar.key(j)``.

    Attributes:
      source: says which records there are, and their order and classes.
      sidecar: more features, for example a ``Manifest`` with ``image_column=""`` and a
        ``key_column``. Its records that ``source`` lacks do not matter.
      prefix: start of the source's keys that the sidecar's keys lack: for a ``Folder`` its root
        with a slash at the end.
      missing: ``error`` when the sidecar lacks a record, or ``record``: that record is bad.

    Raises:
      DataError: on first use, when records are missing, keys repeat, or both have a feature.
    """

    source: Source
    sidecar: Source
    prefix: str = ""
    missing: Literal["error", "record"] = "error"

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _partner(self) -> np.ndarray:
        """Position in the sidecar of every record, -1 where it is missing."""
        shared = set(self.source.info.features) & set(self.sidecar.info.features)
        if shared:
            raise DataError(
                f"{self.source.info.name} and {self.sidecar.info.name} both have the feature "
                f"{sorted(shared)[0]!r}; leave it out of one of them"
            )
        places = _places(self.sidecar)
        partners = [places.get(self._sidecar_key(i), -1) for i in range(len(self.source))]
        missing = [i for i, place in enumerate(partners) if place < 0]
        if missing and (self.missing == "error" or len(missing) == len(partners)):
            raise DataError(
                f"{self.sidecar.info.name} lacks {len(missing)} of {len(partners)} records, first "
                f"{self._sidecar_key(missing[0])!r}; its own first is {self.sidecar.key(0)!r}: "
                "set prefix, complete it, or set missing='record'"
            )
        return np.asarray(partners, np.int64)

    def _sidecar_key(self, index: int) -> str:
        return self.source.key(index).removeprefix(self.prefix)

    @property
    def info(self) -> SourceInfo:
        info, more = self.source.info, self.sidecar.info
        return dataclasses.replace(
            info,
            class_names=info.class_names or more.class_names,
            features={**info.features, **more.features},
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        partner = int(self._partner[valid_index(index, self)])
        if partner < 0:
            raise DataError(f"{self.key(index)}: {self.sidecar.info.name} has no such record")
        return {**self.source[index], **self.sidecar[partner]}

    def column(self, feature: str) -> list[Any]:
        """A feature of all records."""
        if feature not in self.sidecar.info.features:
            return feature_of(self.source, feature)
        if (self._partner < 0).any():
            raise DataError(f"{self.sidecar.info.name} lacks records, so {feature!r} is unknown")
        return at_indices(feature_of(self.sidecar, feature), self._partner)

    def names(self, feature: str) -> tuple[str, ...]:
        """The names of a class, group or label feature, in the order of their numbers."""
        has = feature in self.sidecar.info.features
        return names_of(self.sidecar if has else self.source, feature)

    def fingerprint(self) -> str:
        """Changes with the arguments and with the content of both sources."""
        return content(self)

    def key(self, index: int) -> str:
        return self.source.key(index)


def _places(source: Source) -> dict[str, int]:
    """Key to position, of all records."""
    places: dict[str, int] = {}
    for index in range(len(source)):
        key = source.key(index)
        if places.setdefault(key, index) != index:
            raise DataError(f"{source.info.name}: two records are called {key!r}")
    return places
