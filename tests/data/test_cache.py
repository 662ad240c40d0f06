from __future__ import annotations

import dataclasses
import itertools
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vision.data.cache import DiskCache, InMemory
from vision.data.fingerprint import fingerprint
from vision.data.ops.base import noted
from vision.data.ops.geometry import CenterCrop, RandomCrop, RandomFlip
from vision.data.ops.values import Keep, ValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.source import DataError, SourceInfo
from vision.data.sources.arrays import Arrays

ROOT = Path(__file__).resolve().parents[2]
CROP = (CenterCrop(4),)
reads: list[int] = []  # which records were taken from the source


@dataclasses.dataclass(frozen=True)
class Counted:
    """Records that say when they are read; those in ``bad`` cannot be."""

    size: int = 12
    offset: int = 0
    bad: tuple[int, ...] = ()
    pause_s: float = 0.0

    @property
    def info(self) -> SourceInfo:
        return SourceInfo("counted", self.size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        reads.append(index)
        time.sleep(self.pause_s)
        if index in self.bad:
            raise DataError(f"{self.key(index)}: spoilt")
        image = (np.arange(108) * (index + 3) + self.offset).astype(np.uint8).reshape(6, 6, 3)
        return {"image": image, "label": index, "path": f"file{index}"}

    def key(self, index: int) -> str:
        return f"counted/{index}"

    def fingerprint(self) -> str:
        return f"{self.size}/{self.offset}"


@dataclasses.dataclass(frozen=True)
class NoPath:
    """Drops the text and notes something private."""

    def __call__(self, example, rng):
        return noted({k: v for k, v in example.items() if k != "path"}, "NoPath")


OPS = (NoPath(), *CROP)


@pytest.fixture(autouse=True)
def _forget():
    reads.clear()


def direct(index: int) -> np.ndarray:
    return CenterCrop(4)(Counted()[index], np.random.default_rng(0))["image"]


def batches(data, count: int):
    with data.loader(seed=0) as loader:
        return list(itertools.islice(loader, count))


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_every_record_is_made_once_and_is_the_same(tmp_path, kind):
    source = Counted()
    cached = DiskCache(source, OPS, str(tmp_path)) if kind == "disk" else InMemory(source, OPS)
    plain = TrainData(source, 8, (*OPS, RandomFlip(), ValueRange()), threads=0)
    through = TrainData(cached, 8, (RandomFlip(), ValueRange()), threads=3)
    for one, other in zip(batches(plain, 5), batches(through, 5), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype
    for index in range(12):
        _ = cached[index]
    reads.clear()
    gathered = batches(TrainData(cached, 6, threads=0), 4)
    single = batches(TrainData(cached, 6, (Keep(("image", "label")),), threads=0), 4)
    for one, other in zip(gathered, single, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])
    example = cached[3]
    assert set(example) == {"image", "label"}
    example["image"][:] = 0  # a copy
    np.testing.assert_array_equal(cached[3]["image"], direct(3))
    reads.clear()
    again = pickle.loads(pickle.dumps(cached))
    assert len(pickle.dumps(cached)) < 2000
    np.testing.assert_array_equal(again[5]["image"], direct(5))
    if kind == "disk":
        assert reads == [5]  # by ``direct``


def test_a_change_of_ops_or_data_starts_anew(tmp_path):
    def path(source=Counted(), ops=OPS) -> Path:
        return DiskCache(source, ops, str(tmp_path)).path

    assert path() == path()
    others = [
        path(Counted(13)),
        path(Counted(offset=1)),
        path(ops=(NoPath(), CenterCrop(5))),
        path(ops=(*OPS, ValueRange())),
        path(ops=CROP),
    ]
    assert len({path(), *others}) == 6
    old, new = (
        DiskCache(Counted(), OPS, str(tmp_path)),
        DiskCache(Counted(offset=1), OPS, str(tmp_path)),
    )
    assert not np.array_equal(old[2]["image"], new[2]["image"])


def test_a_change_of_code_starts_anew(tmp_path, monkeypatch):
    (tmp_path / "own_op.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Own:\n"
        "    def __call__(self, example, rng):\n        return example\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_op  # pyright: ignore[reportMissingImports]

    before = DiskCache(Counted(), (own_op.Own(),), str(tmp_path)).path
    with (tmp_path / "own_op.py").open("a") as file:
        file.write("# another version\n")
    assert DiskCache(Counted(), (own_op.Own(),), str(tmp_path)).path != before


def test_content_is_hashed_where_the_source_does_not_tell():
    def arrays(value: int = 0, label: int = 0) -> Arrays:
        image = np.zeros((3, 2, 2, 1), np.uint8)
        image[2, 1, 1] = value
        return Arrays({"image": image, "label": np.array([0, 1, label])})

    assert fingerprint(arrays()) == fingerprint(arrays())
    assert len({fingerprint(arrays(*x)) for x in ((0, 0), (1, 0), (0, 1))}) == 3
    encoded = [Arrays({"image": np.array([a, b"x"], object)}) for a in (b"xy", b"xz")]
    assert fingerprint(encoded[0]) != fingerprint(encoded[1])


def test_damage_is_noticed_and_mended(tmp_path):
    cache = DiskCache(Counted(), OPS, str(tmp_path))
    for index in range(12):
        _ = cache[index]
    size = (cache.path / "records.bin").stat().st_size // 12
    for name, offset in (("records.bin", 4 * size + 7), ("written.bin", 9 * 8 + 1)):
        with (cache.path / name).open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 1]))
    with (cache.path / "records.bin").open("r+b") as file:
        file.truncate(size * 11)  # as after a crash of the machine
    reads.clear()
    again = DiskCache(Counted(), OPS, str(tmp_path))
    images = again.__getitems__(np.arange(12))["image"]
    assert sorted(reads) == [4, 9, 11]
    for index in range(12):
        np.testing.assert_array_equal(images[index], direct(index))


# Without pytest and grain, which take seconds to import. The records are those of ``pictures``.
WRITER = """
import sys, time
sys.path.insert(0, {root!r})
import numpy as np
from vision.data.cache import DiskCache
from vision.data.ops.geometry import CenterCrop
from vision.data.sources.arrays import Arrays
images = np.load({images!r})
source = Arrays({{"image": images, "label": np.arange(len(images))}})
cache = DiskCache(source, (CenterCrop(16),), {cache!r})
cache.path
print("ready", flush=True)
start = int(sys.stdin.readline())
for index in range(len(images)):
    time.sleep(0.001)
    cache[(index + start) % len(images)]
print("done", flush=True)
"""


def test_writers_side_by_side_and_kill_9(tmp_path):
    """Three processes fill one cache, two of them are killed; every record comes out right."""
    count, root = 400, tmp_path / "cache"
    images = np.random.default_rng(0).integers(0, 256, (count, 20, 20, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    script = WRITER.format(root=str(ROOT), images=str(tmp_path / "images.npy"), cache=str(root))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for start, writer in zip((0, 7, 200), writers, strict=True):
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write(f"{start}\n")
        writer.stdin.flush()
    for writer in writers[:2]:
        time.sleep(0.1)
        writer.kill()
    output, _ = writers[2].communicate(timeout=120)
    assert output == "done\n"
    for writer in writers[:2]:
        writer.communicate(timeout=60)
    assert [w.returncode for w in writers] == [-9, -9, 0]
    (folder,) = root.iterdir()
    expected = images[:, 2:18, 2:18]
    wrong = Arrays({"image": np.zeros_like(images), "label": np.arange(count)})
    cache = DiskCache(
        Arrays({"image": images, "label": np.arange(count)}), (CenterCrop(16),), str(root)
    )
    assert cache.path == folder
    object.__setattr__(cache, "source", wrong)  # what is read from now on comes from the cache
    np.testing.assert_array_equal(cache.__getitems__(np.arange(count))["image"], expected)


def test_threads_side_by_side(tmp_path):
    cache, failures = DiskCache(Counted(60), OPS, str(tmp_path)), []

    def work(step: int) -> None:
        for index in range(60):
            at = index * step % 60
            if not np.array_equal(cache[at]["image"], direct(at)):
                failures.append(at)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 7, 11, 59)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_bad_records_stay_bad_and_are_masked(tmp_path, kind):
    source = Counted(bad=(0, 5))
    cached = DiskCache(source, OPS, str(tmp_path)) if kind == "disk" else InMemory(source, OPS)
    for _ in range(2):
        with EvalData(cached, 4, on_error="mask").loader() as loader:
            masks = np.concatenate([b["_mask"] for b in loader])
            assert [record.key for record in loader.take_bad()] == ["counted/0", "counted/5"]
        assert np.flatnonzero(~masks).tolist() == [0, 5]
    with pytest.raises(DataError, match="counted/5: spoilt"):
        cached[5]
    all_bad = Counted(bad=tuple(range(12)))
    lost = DiskCache(all_bad, OPS, str(tmp_path / "x")) if kind == "disk" else InMemory(all_bad)
    with pytest.raises(DataError, match="counted: no record is readable; counted/11: spoilt"):
        lost[3]


@pytest.mark.parametrize("kind", ["disk", "memory"])
@pytest.mark.parametrize(
    ("source", "ops", "message"),
    [
        (Counted(), (NoPath(), RandomCrop(4)), r"record counted/0: RandomCrop.*draws random"),
        (Counted(), (), "feature 'path' is <U5; a cache keeps numbers"),
        (Arrays({"image": np.array([np.zeros((2, 2, 1), np.uint8), np.zeros((3, 2, 1), np.uint8)],
                                   object)}), (), "record arrays/1 .*arrays/0"),
    ],
)  # fmt: skip
def test_what_cannot_be_cached_is_refused(tmp_path, kind, source, ops, message):
    cached = DiskCache(source, ops, str(tmp_path)) if kind == "disk" else InMemory(source, ops)
    with pytest.raises(ValueError, match=message):
        [cached[i] for i in range(len(source))]


def test_ops_must_have_a_name():
    with pytest.raises(ValueError, match="must be frozen dataclasses"):
        DiskCache(Counted(), (lambda example, rng: example,), "x")
    with pytest.raises(ValueError, match="must be frozen dataclasses"):
        InMemory(Counted(), (lambda example, rng: example,))
    with pytest.raises(ValueError, match="threads is 0"):
        InMemory(Counted(), threads=0)


def test_caches_of_caches(tmp_path):
    disk = DiskCache(Counted(), OPS, str(tmp_path))
    memory = InMemory(disk, threads=2)  # whose threads open the file while memory loads
    again = DiskCache(InMemory(Counted(), OPS), CROP, str(tmp_path))
    for index in range(12):
        np.testing.assert_array_equal(memory[index]["image"], direct(index))
        np.testing.assert_array_equal(again[index]["image"], direct(index))
    assert again.path != disk.path
