from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest

from vision.data.batches import ExampleRng
from vision.data.ops.geometry import RandomCrop, RandomFlip
from vision.data.ops.values import Drop, Keep, ValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.samplers import InOrder, Shuffle
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays

N = 23
RANDOM_OPS = (RandomCrop(4, padding=2), RandomFlip(), ValueRange())


def numbered(n: int = N, **more: np.ndarray) -> Arrays:
    """Record i is recognisable: label i, every pixel i."""
    image = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 4, 4, 1))
    return Arrays({"image": image, "label": np.arange(n), **more})


@dataclasses.dataclass(frozen=True)
class OneByOne:
    """The same records without whole-batch reading."""

    inner: Arrays

    @property
    def info(self) -> SourceInfo:
        return self.inner.info

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.inner[index]

    def key(self, index: int) -> str:
        return self.inner.key(index)


@dataclasses.dataclass(frozen=True)
class NoteDraws:
    """Makes what was drawn visible in the batch."""

    def __call__(self, example, rng):
        return {**example, "noise": rng.random(3), "flip": example["_draws"]["RandomFlip"]["flip"]}


def take(data: TrainData, count: int, **arguments) -> list[dict[str, np.ndarray]]:
    with data.loader(**{"seed": 0, **arguments}) as loader:
        return list(itertools.islice(loader, count))


def read(data: EvalData, **arguments) -> list[dict[str, np.ndarray]]:
    with data.loader(**arguments) as loader:
        return list(loader)


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def test_a_batch_is_what_the_documentation_says():
    data = TrainData(numbered(), 8, RANDOM_OPS, threads=2)
    batch = take(data, 1)[0]
    assert set(batch) == {"image", "label", "_mask", "_index"}
    assert all(type(v) is np.ndarray for v in batch.values())
    assert (batch["image"].shape, batch["image"].dtype) == ((8, 4, 4, 1), np.float32)
    assert batch["label"].dtype == batch["_index"].dtype == np.int32
    assert batch["_mask"].dtype == bool
    assert batch["_mask"].all()
    np.testing.assert_array_equal(batch["label"], batch["_index"])
    assert data.info == data.source.info
    assert data.steps_per_epoch == 2


def test_order_is_the_samplers_and_every_epoch_is_complete():
    batches = take(TrainData(numbered(), 5, threads=2), 3 * N // 5 + 1, seed=4)
    stream = np.concatenate([b["_index"] for b in batches])[: 2 * N]
    for epoch in range(2):
        expected = Shuffle()(4, epoch, np.arange(N), N)
        np.testing.assert_array_equal(stream[epoch * N : (epoch + 1) * N], expected)
    in_order = take(TrainData(numbered(), 5, sampler=InOrder()), 6)
    np.testing.assert_array_equal(
        np.concatenate([b["_index"] for b in in_order]), np.arange(30) % N
    )


def test_batches_larger_than_the_data_set_repeat_it():
    data = TrainData(numbered(3), 8)
    batch = take(data, 1)[0]
    assert data.steps_per_epoch == 1
    assert sorted(batch["_index"][:3]) == sorted(batch["_index"][3:6]) == [0, 1, 2]


def test_same_batches_for_any_number_of_threads():
    ops = (*RANDOM_OPS, NoteDraws())
    reference = take(TrainData(numbered(), 6, ops, threads=0), 9)
    for threads, ahead in ((1, 1), (4, 4), (4, 0), (2, 9)):
        data = TrainData(numbered(), 6, ops, threads=threads, prefetch_batches=ahead)
        assert_equal(take(data, 9), reference)


def global_batches(layouts: list[TrainData], count: int) -> list[dict[str, np.ndarray]]:
    """What ``len(layouts)`` processes read side by side, put together; each reads its own way."""
    parts = [
        take(data, count, seed=3, first_batch=2, process_index=p, process_count=len(layouts))
        for p, data in enumerate(layouts)
    ]
    return [
        {name: np.concatenate([part[b][name] for part in parts]) for name in parts[0][b]}
        for b in range(count)
    ]


@pytest.mark.parametrize("ops", [(), (*RANDOM_OPS, NoteDraws())])
def test_global_order_for_any_number_of_processes_and_threads(ops):
    data = TrainData(numbered(), 8, ops, threads=0)
    reference = global_batches([data], 7)
    seen = np.concatenate([batch["_index"] for batch in reference])
    expected = np.concatenate([Shuffle()(3, epoch, np.arange(N), N) for epoch in range(4)])
    np.testing.assert_array_equal(seen, expected[16:72])
    for count in (1, 2, 4, 8):
        for threads in (0, 1, 3):
            one = dataclasses.replace(data, threads=threads)
            assert_equal(global_batches([one] * count, 7), reference)


@pytest.mark.slow
def test_global_order_for_worker_processes():
    """Of two processes one has a worker, of four one has three; the others read in threads."""
    data = TrainData(numbered(), 8, (*RANDOM_OPS, NoteDraws()), threads=0)
    reference = global_batches([data], 5)
    one, three = (dataclasses.replace(data, workers=workers) for workers in (1, 3))
    assert_equal(global_batches([data, one], 5), reference)
    threads = dataclasses.replace(data, threads=3)
    assert_equal(global_batches([data, three, threads, data], 5), reference)


@pytest.mark.parametrize("ops", [(), RANDOM_OPS])
def test_resume_is_the_tail(ops):
    data = TrainData(numbered(), 6, ops, threads=1)
    reference = take(data, 12)
    for first in (0, 1, 2, 3, 4, 7, 11):
        assert_equal(take(data, 12 - first, first_batch=first), reference[first:])
    assert_equal(
        take(data, 4, first_batch=3, process_index=1, process_count=2),
        [{k: v[3:] for k, v in b.items()} for b in reference[3:7]],
    )


def test_starting_late_is_immediate():
    data = TrainData(numbered(), 6, RANDOM_OPS)
    take(data, 1)
    start = time.perf_counter()
    batches = take(data, 2, first_batch=10**9)
    assert time.perf_counter() - start < 2
    positions = 10**9 * 6 + np.arange(6)
    expected = [Shuffle()(0, int(p // N), np.array([p % N]), N)[0] for p in positions]
    np.testing.assert_array_equal(batches[0]["_index"], expected)


def test_seeds_and_positions_draw_differently():
    ops = (*RANDOM_OPS, NoteDraws())
    data = TrainData(numbered(), N, ops, sampler=InOrder())
    first, second = take(data, 2)
    other = take(data, 1, seed=1)[0]
    noise = np.concatenate([first["noise"], second["noise"], other["noise"]])
    assert len(np.unique(noise)) == noise.size
    assert 0.2 < np.concatenate([first["flip"], second["flip"], other["flip"]]).mean() < 0.8


def test_example_rng_equals_a_fresh_generator():
    rng = ExampleRng(5)
    for position in (0, 3, 2**40, 3):
        fresh = np.random.Generator(np.random.Philox(key=np.array([5, position], np.uint64)))
        again = rng.at(position)
        assert again.random(3).tolist() == fresh.random(3).tolist()
        assert (
            again.integers(0, 9, 3, np.uint8).tolist() == fresh.integers(0, 9, 3, np.uint8).tolist()
        )
        again.standard_normal()


def test_gathered_batches_equal_those_read_one_by_one():
    more = {"weight": np.linspace(0, 1, N), "big": np.arange(N, dtype=np.int64) * 1000}
    for count in (1, 2):
        arguments = {"process_index": count - 1, "process_count": count}
        train = [
            take(TrainData(s, 6), 9, **arguments)
            for s in (numbered(**more), OneByOne(numbered(**more)))
        ]
        assert_equal(*train)
        assert train[0][0]["weight"].dtype == np.float32
        assert train[0][0]["big"].dtype == np.int32
        evaluation = [
            read(EvalData(s, 6), **arguments)
            for s in (numbered(**more), OneByOne(numbered(**more)))
        ]
        assert_equal(*evaluation)


@pytest.mark.parametrize("ops", [(), (ValueRange(),)])
def test_evaluation_pads_every_size(ops):
    for n in range(1, 41):
        data = EvalData(numbered(n), 8, ops, threads=0)
        batches = read(data)
        assert len(batches) == data.num_batches == -(-n // 8)
        mask = np.concatenate([b["_mask"] for b in batches])
        index = np.concatenate([b["_index"] for b in batches])
        image = np.concatenate([b["image"] for b in batches])
        assert mask.tolist() == [True] * n + [False] * (len(mask) - n)
        assert index.tolist() == [*range(n), *[-1] * (len(mask) - n)]
        assert not image[n:].any()
        assert {b["image"].shape for b in batches} == {(8, 4, 4, 1)}
        for count in (2, 4):
            parts = [read(data, process_index=p, process_count=count) for p in range(count)]
            assert {len(part) for part in parts} == {len(batches)}
            for b, batch in enumerate(batches):
                for name in batch:
                    joined = np.concatenate([part[b][name] for part in parts])
                    np.testing.assert_array_equal(joined, batch[name])


def test_evaluation_is_the_same_every_time_and_ends():
    data = EvalData(numbered(), 8, RANDOM_OPS, threads=2)
    assert_equal(read(data), read(data))
    loader = data.loader()
    assert len(list(loader)) == 3
    assert next(loader, None) is None
    loader.close()


def test_closing_stops_the_threads():
    before = threading.active_count()
    for _ in range(3):
        loader = TrainData(numbered(), 4, RANDOM_OPS, threads=4).loader(seed=0)
        next(loader)
        loader.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@dataclasses.dataclass(frozen=True)
class Give:
    """Replaces or adds a feature by a function of the label."""

    name: str
    make: Any

    def __call__(self, example, rng):
        return {**example, self.name: self.make(int(example["label"]))}


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            Give("id", lambda i: f"x{i}"),
            r"feature 'id' is <U2, .*Tokenize it, or Drop\(\('id',\)\)",
        ),
        (Give("file", lambda i: b"\xff\xd8"), r"feature 'file' is \|S2, .*Decode it"),
        (Give("thing", lambda i: None), "feature 'thing' is object.*make it a numeric array"),
        (Give("ragged", lambda i: [[1], [1, 2]]), "feature 'ragged' is no array"),
        (
            Give("image", lambda i: np.zeros((4, 4 + i // 3, 1))),
            r"'image' is float64\[4, 4, 1\] in record arrays/0 but float64\[4, 5, 1\] in record "
            r"arrays/3; .*resize, crop or pad",
        ),
        (
            Give("n", lambda i: 1.5 if i == 2 else 1),
            r"'n' is int64\[\] in record arrays/0 but float64",
        ),
        (
            Give("huge", lambda i: 2**40),
            "arrays/0: feature 'huge' holds int64 values outside int32",
        ),
        (
            lambda e, r: e if e["label"] < 3 else {"label": e["label"]},
            r"records arrays/0 and arrays/3 differ in features \['image'\]",
        ),
        (Give("x", lambda i: 1 // (2 - i)), "arrays: record arrays/2: .* ZeroDivisionError"),
        (lambda e, r: e["label"], "arrays: record arrays/0: the ops gave int.*, not a dict"),
        (Keep(("picture",)), "record arrays/0: .*no feature 'picture' among"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "mask"])
def test_faults_of_ops_name_feature_and_records_and_are_never_masked(op, message, on_error):
    data = TrainData(numbered(), 6, (op,), sampler=InOrder(), on_error=on_error, threads=1)
    with pytest.raises(DataError, match=message):
        take(data, 1)


def test_private_features_stay_on_the_host_and_drop_helps():
    data = TrainData(numbered(), 6, (Give("id", str), Give("_note", str), Drop(("id",))))
    assert set(take(data, 1)[0]) == {"image", "label", "_mask", "_index"}


def test_gathering_strings_names_a_record():
    source = Arrays({"id": np.array(["a", "b"]), "label": np.arange(2)})
    with pytest.raises(DataError, match=r"record arrays/[01]: feature 'id' is <U1.*Tokenize it"):
        take(TrainData(source, 2), 1)


def test_an_error_reaches_the_caller_and_stops_the_loader():
    op = Give("x", lambda i: 1 / (i - 12))
    loader = TrainData(numbered(), 6, (op,), sampler=InOrder(), threads=2).loader(seed=0)
    assert [len(next(loader)["x"]) for _ in range(2)] == [6, 6]
    with pytest.raises(DataError, match=r"arrays/12.*ZeroDivisionError"):
        next(loader)
    with pytest.raises(ValueError, match="closed"):
        next(loader)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TrainData(numbered(), 0), ValueError, "batch_size is 0"),
        (lambda: TrainData(numbered(), 4, on_error="skip"),  # pyright: ignore[reportArgumentType]
         ValueError, "on_error is 'skip', expected one of"),
        (lambda: EvalData(numbered(), 4, threads=-1), ValueError, "threads is -1"),
        (lambda: TrainData(numbered(), 4, workers=-1), ValueError, "workers is -1"),
        (lambda: TrainData(numbered(), 4, ("flip",)),  # pyright: ignore[reportArgumentType]
         ValueError, "'flip' is not an op"),
        (lambda: take(TrainData(numbered(), 6), 1, process_count=4), ValueError,
         "batch_size=6 is not divisible by the 4 processes .* multiple of 4"),
        (lambda: take(TrainData(numbered(), 6), 1, process_index=2), ValueError, "0..0"),
        (lambda: take(TrainData(numbered(), 6), 1, seed=-1), ValueError, "seed=-1"),
        (lambda: take(TrainData(numbered(0), 6), 1), DataError, "arrays: the source has no rec"),
        (lambda: read(EvalData(numbered(0), 6)), DataError, "no records"),
    ],
)  # fmt: skip
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()
