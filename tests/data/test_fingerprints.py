"""Content is named from arguments, paths, sizes and times: no record is opened for it."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vision.data.all_records import feature_of
from vision.data.cache import DiskCache
from vision.data.columns import ClassLabel, Number
from vision.data.fingerprint import fingerprint
from vision.data.ops import Decode
from vision.data.source import Source
from vision.data.sources.array_record import ArrayRecord, ArrayRecordPayloads, convert, unpack
from vision.data.sources.arrays import Arrays
from vision.data.sources.combine import Concat, Joined, Relabel, Subset
from vision.data.sources.digits import Digits
from vision.data.sources.folder import Folder
from vision.data.sources.frames import Frames
from vision.data.sources.manifest import Manifest
from vision.data.sources.parquet import Parquet
from vision.data.sources.scenes import Scenes
from vision.data.sources.splits import Chronological, Split, StratifiedSplit
from vision.data.sources.webdataset import WebDataset

LABEL = {"label": ClassLabel(("cat", "dog"))}


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 9, 9)).save(out, "PNG", compress_level=0)
    return out.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        name = ("cat", "dog")[i % 2]
        for path in (Path("images", name, f"{i}.png"), Path("clips", name, "a", f"{i}.png")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(i))
    rows = [
        {"image": str(p), "label": p.parent.name} for p in sorted(Path("images").rglob("*.png"))
    ]
    Path("table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("ages.csv").write_text(
        "id,age\n" + "".join(f"{r['image']},{r['image'][-5]}\n" for r in rows)
    )
    labels = [row["label"] for row in rows]
    table = {"image": [png(i) for i in range(6)], "label": labels}
    pyarrow.parquet.write_table(pyarrow.table(table), "bytes.parquet")
    both = [{"bytes": None, "path": row["image"]} for row in rows]
    pyarrow.parquet.write_table(pyarrow.table({"image": both, "label": labels}), "both.parquet")
    with tarfile.open("shard.tar", "w") as tar:
        for i in range(6):
            for ending, data in (("png", png(i)), ("cls", labels[i].encode())):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    convert(Folder("images"), "records")
    return tmp_path


def folder() -> Folder:
    return Folder("images")


IMAGE, CLIP = "images/dog/3.png", "clips/dog/a/3.png"
SHARD = "records/data-00000-of-00001.array_record"
FILES = {
    "folder": (folder, IMAGE),
    "manifest": (lambda: Manifest("table.jsonl", LABEL), IMAGE),
    "table of manifest": (lambda: Manifest("table.jsonl", LABEL), "table.jsonl"),
    "parquet": (lambda: Parquet("bytes.parquet", LABEL), "bytes.parquet"),
    "parquet with paths": (lambda: Parquet("both.parquet", LABEL), IMAGE),
    "webdataset": (
        lambda: WebDataset("shard.tar", {"label": ClassLabel(("cat", "dog"), column="cls")}),
        "shard.tar",
    ),
    "array_record": (lambda: ArrayRecord("records"), SHARD),
    "payloads": (lambda: ArrayRecordPayloads(SHARD, unpack), SHARD),
    "frames": (lambda: Frames("clips", frames=2), CLIP),
    "subset": (lambda: Subset(folder(), indices=(5, 0)), IMAGE),
    "split": (lambda: Split(folder(), "val", (("train", 0.5), ("val", 0.5))), IMAGE),
    "concat": (lambda: Concat((folder(), folder()), origin="from"), IMAGE),
    "relabel": (lambda: Relabel(folder(), (("cat", "pet"), ("dog", "pet"))), IMAGE),
    "joined": (lambda: Joined(folder(), ages()), "ages.csv"),
    "cache": (lambda: DiskCache(folder(), (Decode(),), "cache"), IMAGE),
}


def ages() -> Manifest:
    return Manifest("ages.csv", {"age": Number()}, image_column="", key_column="id")


def set_time(path: str, ns: int) -> None:
    os.utime(path, ns=(ns, ns))


@pytest.mark.parametrize("name", FILES)
def test_time_and_size_of_a_file_tell_and_its_bytes_are_not_read(here, name):
    make, path = FILES[name]
    before = fingerprint(make())
    assert fingerprint(make()) == before
    time, data = os.stat(path).st_mtime_ns, Path(path).read_bytes()
    if path.endswith(".png"):
        Path(path).write_bytes(bytes(len(data)))  # no image at all, and nobody looks
        set_time(path, time)
        assert fingerprint(make()) == before
    set_time(path, time + 1)
    assert fingerprint(make()) != before
    set_time(path, time)
    if path.endswith(".png"):
        Path(path).write_bytes(data + b"0")
        set_time(path, time)
        assert fingerprint(make()) != before


def test_arguments_tell(here):
    shares = (("train", 0.5), ("val", 0.5))
    sources: list[Source] = [
        folder(),
        Folder("images", "train", 0.5),
        Folder("images", "val", 0.5),
        Manifest("table.jsonl", LABEL),
        Manifest("table.jsonl", {"label": ClassLabel(("dog", "cat"))}),
        Subset(folder(), indices=(0, 1)),
        Subset(folder(), indices=(1, 0)),
        Split(folder(), "train", shares),
        Split(folder(), "train", shares, StratifiedSplit(seed=1)),
        Split(Joined(folder(), ages()), "train", shares, Chronological("age")),
        Relabel(folder(), (("cat", "a"), ("dog", "b"))),
        Relabel(folder(), (("cat", "b"), ("dog", "a"))),
        Concat((folder(), Manifest("table.jsonl", LABEL))),
        Concat((Manifest("table.jsonl", LABEL), folder())),
        Scenes(num_examples=6),
        Scenes(num_examples=6, seed=1),
    ]
    assert len({fingerprint(source) for source in sources}) == len(sources)


def test_the_names_in_a_file_of_names_and_missing_files_tell(here):
    Path("keys.txt").write_text("images/dog/3.png\n")
    before = fingerprint(Subset(folder(), keys_file="keys.txt"))
    Path("keys.txt").write_text("images/cat/4.png\n")
    assert fingerprint(Subset(folder(), keys_file="keys.txt")) != before
    before = fingerprint(Manifest("table.jsonl", LABEL))
    Path(IMAGE).unlink()
    assert fingerprint(Manifest("table.jsonl", LABEL)) != before


def test_code_of_decoders_tells_and_what_has_no_name_is_refused(here, monkeypatch):
    monkeypatch.syspath_prepend(str(here))
    Path("payload.py").write_text(
        "from vision.data.sources.array_record import unpack\n"
        "def read(data):\n    return unpack(data)\n"
    )
    import payload  # pyright: ignore[reportMissingImports]

    before = fingerprint(ArrayRecordPayloads(SHARD, payload.read))
    with Path("payload.py").open("a") as file:
        file.write("# another version\n")
    assert fingerprint(ArrayRecordPayloads(SHARD, payload.read)) != before
    with pytest.raises(ValueError, match="prints as an address"):
        fingerprint(ArrayRecordPayloads(SHARD, functools.partial(payload.read)))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Closed(Arrays):
    """Arrays whose records cannot be read one by one."""

    def __getitem__(self, index: int):
        raise AssertionError("a record was read")

    __getitems__ = __getitem__  # pyright: ignore[reportAssignmentType]


def test_a_feature_of_arrays_needs_no_record():
    label = np.arange(5) % 2
    closed = Closed({"image": np.zeros((5, 2, 2, 1), np.uint8), "label": label})
    assert feature_of(closed, "label") == label.tolist()
    digits = Digits("test")
    assert feature_of(digits, "label") == [digits[i]["label"] for i in range(len(digits))]
