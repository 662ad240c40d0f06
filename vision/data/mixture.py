"""Several sources in one endless stream, in exact proportions.

Stream position i belongs to a part, and to a position within that part's own stream, by integer
arithmetic alone (``Interleave``): any position can be asked for at any time, so that a mixture
resumes at example 10^9 as fast as at 0. Everything else is as in ``vision.data.pipeline``.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from vision.config.ranges import Finite, NonEmpty, NonNegative, Positive, checked
from vision.data.batches import BAD, Batch, BatchReader, Epochs, OnError, PipelineError
from vision.data.loader import MAX_BATCHES, Loader, Reading
from vision.data.ops.base import DeviceOp, Op
from vision.data.pipeline import (
    check_group,
    check_ops,
    check_start,
    rows_per_process,
    source_length,
    target_classes,
)
from vision.data.samplers import (
    Interleave,
    Sampler,
    SourceSampler,
    bound,
    group_of,
    integer_weights,
)
from vision.data.source import DataError, Source, SourceInfo
from vision.data.sources.combine import Concat
from vision.train.labels import LabelKind

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
@checked
class MixturePart:
    """One source of a mixture.

    Attributes:
      source: where records come from.
      weight: its share of the examples, relative to the other parts; above 0. Proportions are
        exact as written: 0.5, 0.3 and 0.2 deal out 5, 3 and 2 of every 10.
      ops: per example, on the host, in order.
      sampler: order of its records; None for ``Shuffle()``.
      name: for counts and messages; empty for the source's own. Names of parts differ.
    """

    source: Source
    weight: Positive[Finite] = 1.0
    ops: tuple[Op, ...] = ()
    sampler: Sampler | SourceSampler | None = None
    name: str = ""

    def __post_init__(self) -> None:
        check_ops(self.ops)


@dataclasses.dataclass(frozen=True)
@checked
class Mixture:
    """An endless stream of batches from several sources with weights.

    Batches have one more feature than those of ``TrainData``: ``_source`` int32 (rows,), which
    part a row comes from. ``_index`` counts through the parts: it is a position in
    ``Mixture.source``. Each part runs through its epochs at its own pace, in its own order.

    Attributes:
      parts: at least one; after their ops all give the same features, shapes and dtypes.
      batch_size: rows of the global batch, over all processes.
      batch_ops: on whole batches, on the device, inside the compiled step.
      pure: every batch is of one part; the weights then deal out batches. Parts whose sampler
        makes groups of rows (P x K, episodes) need it.
      on_error, threads, workers, prefetch_batches, stall_s, labels: as in ``TrainData``.
    """

    parts: NonEmpty[tuple[MixturePart, ...]]
    batch_size: Positive[int]
    batch_ops: tuple[DeviceOp, ...] = ()
    pure: bool = False
    on_error: OnError = "raise"
    threads: NonNegative[int] = 4
    workers: NonNegative[int] = 0
    prefetch_batches: NonNegative[int] = 4
    stall_s: NonNegative[float] = 60.0
    labels: Mapping[str, LabelKind] | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if group_of(part.sampler) > 1 and not self.pure and len(self.parts) > 1:
                raise ValueError(
                    f"{type(part.sampler).__name__} makes groups of rows, which a mixture would "
                    "tear apart; set pure=True"
                )
            check_group(self.batch_size, part.sampler)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The parts' names, all different."""
        names = tuple(part.name or part.source.info.name for part in self.parts)
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"parts: {len(names)} parts, but several are {twice[0]!r}; set name")
        return names

    @functools.cached_property
    def source(self) -> Concat:
        """All records, part after part.

        Raises:
          DataError: a part is empty, or parts have different classes.
        """
        for part in self.parts:
            source_length(part.source)
        records = Concat(tuple(part.source for part in self.parts), name="+".join(self.names))
        source_length(records)
        return records

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    @functools.cached_property
    def _interleave(self) -> Interleave:
        return Interleave(integer_weights(tuple(part.weight for part in self.parts)))

    @property
    def _reading(self) -> Reading:
        return Reading(self.threads, self.workers, self.prefetch_batches, self.stall_s)

    def counts(self, batches: int) -> dict[str, int]:
        """How many examples of each part the first ``batches`` global batches contain.

        Arithmetic of the position alone, so it is exact after a resume and for any number of
        processes. Bad records that were masked out count with their part. The training loop asks
        any data that has this method, and logs the answer as ``data/PART``.
        """
        unit, times = (batches, self.batch_size) if self.pure else (batches * self.batch_size, 1)
        dealt = self._interleave.counts(unit)
        return {name: n * times for name, n in zip(self.names, dealt, strict=True)}

    def loader(
        self, *, seed: int, first_batch: int = 0, process_index: int = 0, process_count: int = 1
    ) -> Loader:
        """Batches ``first_batch``, ``first_batch + 1``, ...; as ``TrainData.loader``.

        Raises:
          DataError: a source is empty or unreadable, or the parts do not fit together.
          ValueError: process_count does not divide batch_size.
        """
        check_start(seed, first_batch)
        rows = rows_per_process(self.batch_size, process_index, process_count)
        readers = tuple(
            self._reader(number, part_seed(seed, number), process_index * rows, rows, seed)
            for number in range(len(self.parts))
        )
        reader = MixtureReader(
            readers,
            self.names,
            tuple(self.source.starts[:-1].tolist()),
            self._interleave,
            self.pure,
        )
        reader.check()
        weights = self._interleave.weights
        shown = "; ".join(
            f"{name} {weight / sum(weights):.1%}, {count} so far"
            for (name, count), weight in zip(self.counts(first_batch).items(), weights, strict=True)
        )
        log.info("mixture of %d parts from batch %d: %s", len(weights), first_batch, shown)
        return Loader(reader, self.info.name, first_batch, MAX_BATCHES, self._reading)

    def _reader(
        self, number: int, order_seed: int, first_row: int, rows: int, seed: int
    ) -> BatchReader:
        part = self.parts[number]
        sampler = self._samplers[number]
        reader = BatchReader(
            source=part.source,
            ops=part.ops,
            order=Epochs(sampler, order_seed, len(part.source)),
            seed=seed,
            batch_size=self.batch_size,
            first_row=first_row,
            rows=rows,
            on_error=self.on_error,
            num_classes=target_classes(self.batch_ops),
            labels=self.labels or {},
        )
        reader.check()
        return reader

    @functools.cached_property
    def _samplers(self) -> tuple[Sampler, ...]:
        return tuple(bound(part.sampler, part.source) for part in self.parts)


def part_seed(seed: int, part: int) -> int:
    """The seed of a part's order: the run's own for part 0, and others for the others.

    Parts of equal length would otherwise be shuffled alike.
    """
    if part == 0:
        return seed
    return int(np.random.SeedSequence([seed, part, 8]).generate_state(1, np.uint64)[0])


@dataclasses.dataclass(frozen=True, repr=False)
class MixtureReader:
    """Makes this process's rows of a global batch of a mixture from the batch's number.

    Attributes:
      readers: one per part.
      names: of the parts.
      starts: position in ``Mixture.source`` of the first record of every part.
      interleave: deals positions, or with ``pure`` batches, out to the parts.
      pure: every batch is of one part.
    """

    readers: tuple[BatchReader, ...]
    names: tuple[str, ...]
    starts: tuple[int, ...]
    interleave: Interleave
    pure: bool

    def __repr__(self) -> str:  # Grain prints it: not the sources' arrays
        return f"MixtureReader({', '.join(self.names)})"

    def __call__(self, number: int) -> dict[str, Any]:
        """As ``BatchReader``, with ``_source`` int32 (rows,)."""
        reader = self.readers[0]
        row = reader.first_row + np.arange(reader.rows, dtype=np.int64)
        positions = int(number) * reader.batch_size + row
        if self.pure:
            part, number_in_part = self.interleave(np.asarray([int(number)], np.int64))
            parts, within = (
                np.full(reader.rows, part[0]),
                number_in_part[0] * reader.batch_size + row,
            )
        else:
            parts, within = self.interleave(positions)
        present = np.unique(parts).tolist()
        if len(present) == 1:
            return self._read(present[0], positions, within)
        chosen = {part: np.flatnonzero(parts == part) for part in present}
        batches = {part: self._read(part, positions[at], within[at]) for part, at in chosen.items()}
        bad = sorted(
            (record for batch in batches.values() for record in batch.pop(BAD, ())),
            key=lambda record: record.position,
        )
        reference = batches[present[0]]
        batch: dict[str, Any] = {
            name: np.empty((reader.rows, *values.shape[1:]), values.dtype)
            for name, values in reference.items()
        }
        for part, at in chosen.items():
            self._require_same_features(batches[part], part, reference, present[0])
            for name, values in batches[part].items():
                batch[name][at] = values
        return batch | ({BAD: tuple(bad)} if bad else {})

    def _read(self, part: int, positions: np.ndarray, within: np.ndarray) -> dict[str, Any]:
        reader = self.readers[part]
        batch = reader.read(positions, reader.order(within))
        batch["_index"] += np.int32(self.starts[part])
        batch["_source"] = np.full(len(positions), part, np.int32)
        return batch

    def check(self) -> None:
        """Reads one record of every part.

        Raises:
          DataError: it cannot be read, or the parts give different features.
        """
        reference = self._example_batch(0)
        for part in range(1, len(self.readers)):
            self._require_same_features(self._example_batch(part), part, reference, 0)

    def busy(self) -> list[str]:
        return [line for reader in self.readers for line in reader.busy()]

    def _example_batch(self, part: int) -> Batch:
        return {name: value[None] for name, value in self.readers[part].placeholder.items()}

    def _require_same_features(
        self, batch: Batch, part: int, reference: Batch, reference_part: int
    ) -> None:
        features, expected = _features(batch), _features(reference)
        if features != expected:
            differing = sorted(
                name for name in features | expected if features.get(name) != expected.get(name)
            )
            shown = "; ".join(
                f"{name!r} is {expected.get(name, 'missing')} in {self.names[reference_part]!r} "
                f"but {features.get(name, 'missing')} in {self.names[part]!r}"
                for name in differing
            )
            raise PipelineError(
                f"mixture: {shown}; all parts must give the same features: mend it in their ops"
            )


def _features(batch: Batch) -> dict[str, str]:
    return {name: f"{values.dtype}{list(values.shape[1:])}" for name, values in batch.items()}
