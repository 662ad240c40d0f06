from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import re
import signal
import time
from fractions import Fraction

import numpy as np
import pytest

from vision.data.class_samplers import PxK
from vision.data.mixture import Mixture, MixturePart, part_seed
from vision.data.ops.geometry import RandomCrop, RandomFlip
from vision.data.ops.values import Keep, ValueRange
from vision.data.pipeline import TrainData
from vision.data.samplers import InOrder, Interleave, bound, integer_weights
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays

OPS = (RandomCrop(4, padding=2), RandomFlip(), ValueRange())


def numbered(n: int, base: int, name: str, **options) -> Arrays:
    image = np.broadcast_to(
        (base + np.arange(n)).astype(np.uint8)[:, None, None, None], (n, 4, 4, 1)
    )
    return Arrays({"image": image, "label": base + np.arange(n)}, name, **options)


@dataclasses.dataclass(frozen=True)
class Patchy:
    """Every fifth record is bad; reading one takes ``pause_s``."""

    size: int
    name: str
    pause_s: float = 0.0

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(self.name, self.size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        time.sleep(self.pause_s)
        if index % 5 == 4:
            raise DataError(f"{self.key(index)}: spoilt")
        return {"image": np.full((5, 5, 1), index, np.uint8), "label": index}

    def key(self, index: int) -> str:
        return f"{self.name}/{index}"


def three(**options) -> Mixture:
    parts = (
        MixturePart(numbered(7, 0, "a"), 0.5, (ValueRange(),)),
        MixturePart(numbered(11, 100, "b"), 0.3, OPS, InOrder()),
        MixturePart(numbered(5, 200, "c"), 0.2, OPS),
    )
    return Mixture(**{"parts": parts, "batch_size": 12, "threads": 0, **options})


def take(data, count: int, **arguments):
    with data.loader(**{"seed": 3, **arguments}) as loader:
        return list(itertools.islice(loader, count))


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def simulated(data: Mixture, seed: int):
    """(part, label) of every position, one after the other, counting as a plain program would."""
    interleave = Interleave(integer_weights(tuple(part.weight for part in data.parts)))
    used = [0] * len(data.parts)
    for position in itertools.count():
        part = int(interleave(np.array([position]))[0][0])
        source = data.parts[part].source
        sampler = bound(data.parts[part].sampler, source)
        epoch, offset = divmod(used[part], len(source))
        order = sampler(part_seed(seed, part), epoch, np.arange(len(source)), len(source))
        used[part] += 1
        yield part, source[int(order[offset])]["label"]


@pytest.mark.parametrize(
    "weights", [(1,), (1, 1), (5, 3, 2), (97, 1, 1, 1), (1,) * 13, (1281167, 50000, 3)]
)
def test_proportions_are_exact_everywhere(weights):
    interleave, n = Interleave(weights), 4000
    parts, within = interleave(np.arange(n))
    shares = np.asarray(weights) / sum(weights)
    bound = max(1, (len(weights) - 1).bit_length()) / 2 + 1e-9
    seen = np.zeros((n + 1, len(weights)), np.int64)
    seen[np.arange(n) + 1, parts] = 1
    seen = seen.cumsum(axis=0)
    assert np.abs(seen - np.arange(n + 1)[:, None] * shares).max() <= bound
    np.testing.assert_array_equal(within, seen[np.arange(n), parts])
    for length in (0, 1, 17, n):
        assert interleave.counts(length) == tuple(seen[length])
    far = sum(weights) * 10**9
    assert interleave.counts(far) == tuple(w * 10**9 for w in weights)
    later = interleave(far + np.arange(50))
    np.testing.assert_array_equal(later[0], parts[:50])
    np.testing.assert_array_equal(later[1], within[:50] + 10**9 * np.asarray(weights)[parts[:50]])


def test_weights_are_taken_as_written():
    assert integer_weights((0.5, 0.3, 0.2)) == (5, 3, 2)
    assert integer_weights((4.0, 2, 2)) == (2, 1, 1)
    third = integer_weights((1 / 3, 2 / 3, 1e-12))
    assert sum(third) < 2**31
    assert third[2] == 1
    assert abs(Fraction(third[0], sum(third)) - Fraction(1, 3)) < 1e-8


def test_stream_is_the_one_that_a_counting_program_gives():
    data = three()
    batches = take(data, 20)
    simulation = list(itertools.islice(simulated(data, 3), 240))
    assert np.concatenate([b["_source"] for b in batches]).tolist() == [p for p, _ in simulation]
    assert np.concatenate([b["label"] for b in batches]).tolist() == [i for _, i in simulation]
    for batch in batches:
        assert batch["_source"].dtype == batch["_index"].dtype == np.int32
        assert batch["image"].dtype == np.float32
        for index, label in zip(batch["_index"], batch["label"], strict=True):
            assert data.source[int(index)]["label"] == label
        plain = batch["_source"] == 0  # the ops of part 0 change no pixel
        np.testing.assert_allclose(batch["image"][plain, 0, 0, 0] * 255, batch["label"][plain])
    seen = collections.Counter(data.names[p] for p, _ in simulation)
    assert data.counts(20) == dict(seen) == {"a": 120, "b": 72, "c": 48}
    later = np.concatenate([b["_source"] for b in take(data, 8, first_batch=9)])
    gained = [data.counts(17)[name] - data.counts(9)[name] for name in data.names]
    assert np.bincount(later, minlength=3).tolist() == gained
    assert data.source.info.name == "a+b+c"
    assert len(data.source) == 23


def test_resume_at_a_billion():
    """In under a second, with what the uninterrupted run has there."""
    data = three(threads=2)
    take(data, 1)
    first = 10**9 // 12
    start = time.perf_counter()
    with data.loader(seed=3, first_batch=first) as loader:
        batch = next(loader)
        elapsed_s = time.perf_counter() - start
    assert elapsed_s < 1
    assert_equal([batch], take(data, 31, first_batch=first - 30)[-1:])
    # Ten positions are a whole turn, so the counting program may skip whole turns.
    position = first * 12
    parts = np.array([p for p, _ in itertools.islice(simulated(data, 3), 10 + 12 + 10)])
    parts = parts[position % 10 :][:12]
    assert batch["_source"].tolist() == parts.tolist()
    used = {p: position // 10 * w for p, w in enumerate((5, 3, 2))}
    head = [p for p, _ in itertools.islice(simulated(data, 3), position % 10)]
    for part in head:
        used[part] += 1
    for part, label in zip(parts.tolist(), batch["label"], strict=True):
        source = data.parts[part].source
        sampler = bound(data.parts[part].sampler, source)
        epoch, offset = divmod(used[part], len(source))
        order = sampler(part_seed(3, part), epoch, np.array([offset]), len(source))
        assert source[int(order[0])]["label"] == label
        used[part] += 1


def test_one_part_is_plain_training_data():
    source = numbered(23, 0, "a")
    mixture = take(Mixture((MixturePart(source, 2.0, OPS),), 8, threads=0), 7, first_batch=2)
    plain = take(TrainData(source, 8, OPS, threads=0), 7, first_batch=2)
    for batch in mixture:
        assert not batch.pop("_source").any()
    assert_equal(mixture, plain)


def test_gathered_parts_and_equal_parts():
    """Without ops whole batches are gathered; equally long parts are shuffled differently."""
    parts = (MixturePart(numbered(40, 0, "a")), MixturePart(numbered(40, 100, "b")))
    gathered = take(Mixture(parts, 16, threads=0), 5)
    keep = (Keep(("image", "label")),)
    single = tuple(dataclasses.replace(part, ops=keep) for part in parts)
    assert_equal(gathered, take(Mixture(single, 16, threads=0), 5))
    labels = np.concatenate([b["label"] for b in gathered])
    first, second = labels[labels < 100], labels[labels >= 100] - 100
    assert sorted(first) == sorted(second) == list(range(40))
    assert (first == second).sum() < 10


@pytest.mark.parametrize("pure", [False, True])
def test_global_batch_for_any_number_of_processes(pure):
    data = three(pure=pure)
    reference = take(data, 10)
    for count in (2, 4):
        parts = [take(data, 10, process_index=p, process_count=count) for p in range(count)]
        joined = [
            {k: np.concatenate([part[b][k] for part in parts]) for k in reference[b]}
            for b in range(10)
        ]
        assert_equal(joined, reference)


def test_pure_batches():
    labels = np.arange(200, 240)
    groups = Arrays({"image": np.zeros((40, 4, 4, 1), np.uint8), "label": labels // 8}, "groups")
    parts = (MixturePart(numbered(11, 0, "a"), 3, OPS), MixturePart(groups, 1, OPS, PxK(3, 4)))
    data = Mixture(parts, 12, pure=True, threads=0)
    batches = take(data, 12)
    sources = [b["_source"] for b in batches]
    assert all(len(set(s)) == 1 for s in sources)
    assert data.counts(12) == {"a": 108, "groups": 36}
    assert sum(12 for s in sources if s[0] == 1) == 36
    stream = np.concatenate([b["_index"] for b in batches if b["_source"][0] == 0])
    for epoch in range(9):
        assert sorted(stream[11 * epoch : 11 * epoch + 11]) == list(range(11))
    for batch in batches:
        if batch["_source"][0] == 1:
            rows = batch["label"].reshape(3, 4)
            assert (rows == rows[:, :1]).all()
            assert len(set(rows[:, 0])) == 3
    with pytest.raises(ValueError, match=r"PxK makes groups of rows.*set pure=True"):
        Mixture(parts, 12)


@pytest.mark.slow
def test_same_order_for_workers_and_a_killed_worker_is_named():
    """0, 1 and 3 workers give the same batches and bad records; SIGKILL ends in an error."""
    parts = (MixturePart(Patchy(23, "a"), 2, OPS), MixturePart(numbered(9, 50, "b"), 1, OPS))
    data = Mixture(parts, 6, on_error="mask", threads=1)
    with data.loader(seed=0, first_batch=5) as loader:
        reference = list(itertools.islice(loader, 7))
        bad = loader.take_bad()
    assert len(bad) > 3
    assert [record.position for record in bad] == sorted(record.position for record in bad)
    with dataclasses.replace(data, workers=1).loader(seed=0, first_batch=5) as loader:
        batches = list(itertools.islice(loader, 7))
        assert_equal(batches, reference)
        assert all(type(values) is np.ndarray for batch in batches for values in batch.values())
        assert loader.take_bad() == bad
    loader = dataclasses.replace(data, workers=3).loader(seed=0, first_batch=5)
    assert_equal(list(itertools.islice(loader, 7)), reference)
    assert loader.take_bad() == bad
    victim = loader.workers[1].process.pid
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"a\+b: data worker 2 of 3 \(process {victim}\)"):
        collections.deque(itertools.islice(loader, 10_000), maxlen=0)
    assert time.monotonic() - start < 60
    with pytest.raises(ValueError, match="closed"):
        next(loader)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_stalled_source_is_reported(threads, caplog):
    slow = MixturePart(Patchy(4, "slow", pause_s=0.5), 1, OPS, InOrder())
    data = Mixture((slow,), 3, threads=threads, stall_s=0.2)
    take(data, 1)
    assert re.search(r"slow: waiting for batch 0 .*record slow/\d since", caplog.text)
    caplog.clear()
    quick = dataclasses.replace(data, parts=(MixturePart(numbered(9, 0, "quick"), 1, OPS),))
    take(quick, 20)
    assert not caplog.records


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Mixture((), 4), ValueError, r"parts is \(\), expected .*not empty"),
        (lambda: MixturePart(numbered(3, 0, "a"), 0.0), ValueError, "weight is 0.0"),
        (lambda: take(three(), 1, process_count=5), ValueError, "batch_size=12 is not divisible"),
        (lambda: take(Mixture((MixturePart(numbered(3, 0, "a")),) * 2, 4), 1), DataError,
         "several are 'a'; set name"),
        (lambda: take(Mixture((MixturePart(numbered(3, 0, "a")), MixturePart(numbered(0, 0, "b"))),
         4), 1), DataError, "b: the source has no records"),
        (lambda: take(Mixture((MixturePart(numbered(3, 0, "a")),
                               MixturePart(numbered(3, 0, "b"), ops=(ValueRange(),))), 4), 1),
         DataError, r"'image' is uint8\[4, 4, 1\] in 'a' but float32\[4, 4, 1\] in 'b'"),
        (lambda: take(Mixture((MixturePart(numbered(3, 0, "a")),
                               MixturePart(numbered(3, 0, "b"), ops=(Keep(("image",)),))), 4), 1),
         DataError, r"'label' is int32\[\] in 'a' but missing in 'b'"),
        (lambda: Mixture((MixturePart(numbered(2, 0, "a", class_names=("x", "y"))),
                          MixturePart(numbered(2, 0, "b", class_names=("y", "x")))), 4).source,
         DataError, "b and a have different classes"),
    ],
)  # fmt: skip
def test_faults_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
