"""Reading a data set to describe it: fields, classes, sizes, bad records, duplicates."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision.data.all_records import has_column
from vision.data.batches import BadRecord, BatchReader, ExampleRng, SinglePass
from vision.data.collate import PipelineError
from vision.data.decode import decode
from vision.data.ops.base import Example, Op
from vision.data.source import DataError, Source, SourceInfo
from vision.report.duplicates import Print, print_of

MOST_DISTINCT = 1000


@dataclasses.dataclass(frozen=True)
class SourcePart:
    """One source with its ops, as a config has it.

    Attributes:
      name: ``train``, or the name of an evaluator.
      source: where records come from.
      ops: per example.
      device_ops: names of what happens on the device, later.
    """

    name: str
    source: Source
    ops: tuple[Op, ...] = ()
    device_ops: tuple[str, ...] = ()


@dataclasses.dataclass
class Field:
    """Statistics of one feature of the records.

    Attributes:
      kinds: dtype and shape, or the type, to how often.
      present: records that have it at all.
      empty: of these, how many are None, NaN, or have no content.
      not_finite: arrays with some NaN or infinite values.
      digests: of the values, at most ``MOST_DISTINCT``.
      low, high: range of finite numbers, or of the lengths of texts.
    """

    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    present: int = 0
    empty: int = 0
    not_finite: int = 0
    digests: set[bytes] = dataclasses.field(default_factory=set)
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: Any) -> None:
        self.present += 1
        if is_empty(value):
            self.empty += 1
            return
        self.kinds[kind_of(value)] += 1
        if len(self.digests) < MOST_DISTINCT:
            self.digests.add(_digest(value))
        if isinstance(value, str | bytes | list | tuple):
            self._widen(len(value), len(value))
            return
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            return
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            self.not_finite += 1
            array = array[finite]
        if array.size:
            self._widen(float(array.min()), float(array.max()))

    def _widen(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def constant(self) -> bool:
        return len(self.digests) == 1 and self.present - self.empty > 1


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """Results of reading the records ``indices`` of a part.

    Attributes:
      part: what was read.
      info: the source's own description.
      indices: of the records, in order.
      fields: by feature name.
      bad: records that cannot be read, or that an op refuses.
      op_error: why the ops do not fit the records at all; empty when they do.
      after_ops: feature after the ops to its kinds; several mean that no batch can be made.
      labels: how often every value of ``label`` was seen, in ``labels_read`` records.
      labels_read: number of records whose labels are counted: all where the source knows its
        labels without opening records, those of ``indices`` otherwise.
      label_of: index to label, where there is one.
      sizes: index to (height, width) of the picture before the ops.
      prints: index to the print of the picture before the ops.
      samples: indices of readable records to show, evenly over the classes and over the records.
    """

    part: SourcePart
    info: SourceInfo
    indices: tuple[int, ...]
    fields: dict[str, Field]
    bad: tuple[BadRecord, ...]
    op_error: str
    after_ops: dict[str, collections.Counter[str]]
    labels: collections.Counter[int]
    labels_read: int
    label_of: dict[int, int]
    sizes: dict[int, tuple[int, int]]
    prints: dict[int, Print]
    samples: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.info.class_names)

    def among(self, count: int) -> str:
        """Names the sample in a sentence about ``count`` records; "" where they are all."""
        return "" if count >= len(self.part.source) else f" among the {count:,} read"

    def class_name(self, label: int) -> str:
        names = self.info.class_names
        return names[label] if 0 <= label < len(names) else str(label)


def survey(part: SourcePart, limit: int, samples: int = 24, seed: int = 0) -> Survey:
    """Reads at most ``limit`` records, evenly spread over the source, before and after the ops.

    A record is bad exactly when the input pipeline with ``on_error="mask"`` would mask it.
    """
    source = part.source
    total = len(source)
    indices = _evenly(limit, total)
    rng, reader = ExampleRng(seed), reader_of(part, seed)
    fields: dict[str, Field] = {}
    after_ops: dict[str, collections.Counter[str]] = {}
    labels: collections.Counter[int] = collections.Counter()
    label_of: dict[int, int] = {}
    sizes: dict[int, tuple[int, int]] = {}
    prints: dict[int, Print] = {}
    bad: list[BadRecord] = []
    readable: list[int] = []
    op_error = ""
    for index in indices:
        try:
            record = source[index]
        except DataError as error:
            bad.append(_bad(part, index, error))
            continue
        for name, value in record.items():
            if not name.startswith("_"):
                fields.setdefault(name, Field()).add(value)
        for label in labels_of(record.get("label")):
            labels[label] += 1
            label_of[index] = label
        try:
            if not op_error:
                for name, value in reader.example(index, rng.at(index)).items():
                    if not name.startswith("_"):
                        after_ops.setdefault(name, collections.Counter())[kind_of(value)] += 1
        except PipelineError as error:
            op_error = str(error)
        except DataError as error:
            bad.append(_bad(part, index, error))
            continue
        readable.append(index)
        pixels = _pixels(record)
        if pixels is not None:
            sizes[index] = (pixels.shape[0], pixels.shape[1])
            prints[index] = print_of(pixels)
    labels_read = len(indices)
    values = _all_labels(source) if labels_read < total else None
    if values is not None:
        labels_read = total
        labels = collections.Counter(label for value in values for label in labels_of(value))
    return Survey(
        part=part,
        info=source.info,
        indices=tuple(indices),
        fields=fields,
        bad=tuple(bad),
        op_error=op_error,
        after_ops=after_ops,
        labels=labels,
        labels_read=labels_read,
        label_of=label_of,
        sizes=sizes,
        prints=prints,
        samples=even_over_classes(readable, label_of, samples),
    )


def even_over_classes(
    readable: Sequence[int], label_of: Mapping[int, int], count: int
) -> tuple[int, ...]:
    """At most ``count`` of the readable records: one of every class, then a second one, ...

    Of more classes than ``count``, evenly spread ones; within a class, evenly spread records, in
    order. Records without a label count as a class.
    """
    members: dict[int, list[int]] = {}
    for index in readable:
        members.setdefault(label_of.get(index, -1), []).append(index)
    classes = [members[label] for label in sorted(members)]
    classes = [classes[i] for i in _evenly(count, len(classes))]
    quota = [0] * len(classes)
    while sum(quota) < min(count, sum(map(len, classes))):
        for i, indices in enumerate(classes):
            if sum(quota) < count and quota[i] < len(indices):
                quota[i] += 1
    chosen = [
        [indices[i] for i in _evenly(many, len(indices))]
        for indices, many in zip(classes, quota, strict=True)
    ]
    rounds = itertools.zip_longest(*chosen)
    return tuple(index for each in rounds for index in each if index is not None)


def _evenly(count: int, total: int) -> list[int]:
    """At most ``count`` of 0..total - 1, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _all_labels(source: Source) -> Sequence[Any] | None:
    """The labels of all records; None where that would mean to read them, or one is bad."""
    if not has_column(source):
        return None
    try:
        return source.column("label")  # type: ignore[attr-defined]
    except (DataError, KeyError):
        return None


def reader_of(part: SourcePart, seed: int = 0) -> BatchReader:
    """The input pipeline's reader over a part, for single examples."""
    order = SinglePass(len(part.source))
    return BatchReader(part.source, part.ops, order, seed, 1, 0, 1, "mask")


def example_of(part: SourcePart, index: int, seed: int = 0) -> Example:
    """Record ``index`` after the ops, with the randomness that ``survey`` used."""
    return reader_of(part, seed).example(index, ExampleRng(seed).at(index))


def _bad(part: SourcePart, index: int, error: DataError) -> BadRecord:
    return BadRecord(part.source.info.name, part.source.key(index), index, index, str(error))


def is_empty(value: Any) -> bool:
    """None, NaN, or nothing in it: an empty text, list or array, or an array of NaN only."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, bytes | list | tuple | dict):
        return len(value) == 0
    array = np.asarray(value)
    if array.size == 0:
        return True
    return bool(array.dtype.kind == "f" and np.isnan(array).all())


def kind_of(value: Any) -> str:
    """``float32[4]``, ``int32``, ``text``, ``bytes``, ``list of text``."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes | bytearray):
        return "bytes"
    if isinstance(value, list | tuple):
        return f"list of {kind_of(value[0])}" if value else "empty list"
    if isinstance(value, bool | int | float):
        return type(value).__name__
    if not isinstance(value, np.ndarray | np.generic):
        return type(value).__name__
    shape = f"[{','.join(map(str, value.shape))}]" if value.shape else ""
    kind = "text" if value.dtype.kind == "U" else str(value.dtype)
    return f"{kind}{shape}"


def labels_of(value: Any) -> list[int]:
    """The classes a ``label`` names: one, those of a 0/1 vector, or none if it is no class."""
    if value is None or isinstance(value, str | bytes):
        return []
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        return []
    if array.ndim == 1:
        return np.flatnonzero(array == 1).tolist() if np.isin(array, (-1, 0, 1)).all() else []
    number = float(array)
    return [int(number)] if number.is_integer() else []


def _digest(value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype != object:
        data = value.tobytes()
    else:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "replace")
    return hashlib.blake2b(data, digest_size=8).digest()


def _pixels(record: Example) -> np.ndarray | None:
    """The picture of a record as uint8 [H, W, 1 or 3], if it has one that can be shown."""
    value = record.get("image")
    if isinstance(value, bytes | bytearray):
        try:
            return decode(bytes(value), strict=False)
        except DataError:
            return None
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.size == 0:
        return None
    pixels = value[:, :, None] if value.ndim == 2 else value
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        return None
    return pixels[:, :, :3]


def lint(info: SourceInfo, fields: Sequence[str], card: dict[str, Any]) -> list[tuple[str, str]]:
    """Missing fields of a data set's card: (field, what to do about it).

    The card is the source's ``info``, completed by ``card`` (a card file) and by columns of the
    records.
    """
    missing = []
    for name, (columns, way_out) in CARD.items():
        stated = getattr(info, name) or card.get(name)
        if not stated and not any(column in fields for column in columns):
            missing.append((name, way_out))
    return missing


CARD: dict[str, tuple[tuple[str, ...], str]] = {
    "licence": (
        ("licence", "license"),
        "under which terms may the pictures be used? An SPDX identifier such as CC-BY-4.0",
    ),
    "homepage": (
        ("homepage", "url", "source", "source_url"),
        "where do the pictures come from? An address, or who made them how",
    ),
    "citation": (
        ("citation", "photographer", "author", "attribution"),
        "what is to be cited, or who is to be named?",
    ),
    "consent": (
        ("consent",),
        "did the people shown, and those who took the pictures, agree? For made-up or impersonal "
        "data say so: 'not applicable: ...'",
    ),
    "personal_data": (
        ("personal_data",),
        "are faces, names, places of living or health in it? yes, no or unknown",
    ),
    "collection": (
        ("collection", "collected", "date"),
        "when, how and by whom was it collected and labelled?",
    ),
}
"""Field of ``SourceInfo``: columns of records that state it too, and the question it answers."""
