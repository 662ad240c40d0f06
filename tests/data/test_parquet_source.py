from __future__ import annotations

import concurrent.futures
import pickle
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import png

from vision.config.specs import build, spec
from vision.data.columns import ClassLabel, Group, Metadata, MultiLabel, Number
from vision.data.descriptions import Captions
from vision.data.ops.values import Decode
from vision.data.pipeline import EvalData
from vision.data.regions import Boxes
from vision.data.source import DataError, Source
from vision.data.sources import parquet
from vision.data.sources.parquet import Parquet

LABEL = {"label": ClassLabel()}


def table(first: int, count: int, **columns: list) -> pa.Table:
    rows = range(first, first + count)
    made: dict[str, Any] = {
        "image": [png(value=i) for i in rows],
        "label": ["dog" if i % 3 else "cat" for i in rows],
        "unread": [bytes(500)] * count,
    }
    return pa.table(made | columns)


def store(path, content: pa.Table, rows: int = 3) -> str:
    pq.write_table(content, path, row_group_size=rows, write_page_checksum=True)
    return str(path)


@pytest.fixture
def two_files(tmp_path):
    store(tmp_path / "a-1.parquet", table(0, 8))
    store(tmp_path / "a-2.parquet", table(8, 5))
    return tmp_path


def test_rows_of_several_files_in_any_order(two_files):
    source = Parquet(str(two_files / "a-*.parquet"), LABEL)
    assert isinstance(source, Source)
    assert source.info.num_examples == len(source) == 13
    assert source.info.class_names == ("cat", "dog")
    assert source.info.features == {"image": "encoded bytes (bytes)", "label": "int32, 0..1"}
    again = pickle.loads(pickle.dumps(source))
    for i in np.random.default_rng(0).permutation(13).tolist():
        assert again[i] == source[i] == {"image": png(value=i), "label": int(i % 3 > 0)}
    assert source.column("label") == [int(i % 3 > 0) for i in range(13)]
    assert source.key(7) == f"{two_files}/a-1.parquet[7]"
    assert source.key(8) == f"{two_files}/a-2.parquet[0]"
    for index in (-1, 13):
        with pytest.raises(IndexError):
            source[index]
    pair = Parquet(tuple(str(two_files / f"a-{i}.parquet") for i in (2, 1)), LABEL)
    assert pair[0]["image"] == png(value=8)
    braces = Parquet(f"{two_files}/a-{{1..2}}.parquet", LABEL)
    assert braces[12] == source[12]


def test_each_thread_keeps_its_last_row_groups_and_no_other_columns(two_files, monkeypatch):
    reads: list[tuple] = []
    real = parquet.read_group

    def counted(path, metadata, group, names):
        reads.append((path[-11:], group, names))
        return real(path, metadata, group, names)

    monkeypatch.setattr(parquet, "read_group", counted)
    source = Parquet(str(two_files / "a-*.parquet"), {"label": ClassLabel(("cat", "dog"))})
    assert len(source) == 13
    assert reads == []
    for i in (0, 1, 3, 2, 4, 0):
        source[i]
    wanted = ("image", "label")
    assert reads == [("a-1.parquet", 0, wanted), ("a-1.parquet", 1, wanted)]
    source[7]
    source[3]  # least recently used of the two but one: gone
    assert [r[1] for r in reads] == [0, 1, 2, 1]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        examples = list(pool.map(source.__getitem__, list(range(13)) * 5))
    assert [e["image"] for e in examples] == [png(value=i) for i in range(13)] * 5
    reads.clear()
    source.column("label")
    assert {names for *_, names in reads} == {("label",)}


def test_damage_costs_only_the_records_of_its_row_group(two_files):
    path = two_files / "a-1.parquet"
    group = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = group.dictionary_page_offset + 80  # in the images themselves
    data[at] ^= 0x40
    path.write_bytes(bytes(data))
    source = Parquet(str(two_files / "a-*.parquet"), LABEL)
    config = spec(
        EvalData,
        source=spec(Parquet, path=source.path, columns={"label": spec(ClassLabel)}),
        batch_size=13,
        ops=[spec(Decode)],
        on_error="mask",
    )
    with build(config).loader() as loader:
        batch = next(loader)
        bad = loader.take_bad()
    assert np.flatnonzero(~batch["_mask"]).tolist() == [3, 4, 5]
    assert [record.key for record in bad] == [f"{path}[{i}]" for i in (3, 4, 5)]
    assert all("row group 1 is damaged" in record.reason for record in bad)


def test_images_as_paths_and_as_hugging_face_structs(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(value=i))
    paths = ["0.png", "../x.png", None]
    source = Parquet(store(tmp_path / "p.parquet", table(0, 3, image=paths)), LABEL)
    assert source[0]["image"] == png(value=0)
    with pytest.raises(DataError, match=r"p.parquet\[1\]: '../x.png' is not a path below"):
        source[1]
    with pytest.raises(DataError, match=r"p.parquet\[2\]: no image in column 'image'"):
        source[2]
    structs = [
        {"bytes": png(value=9), "path": "gone.png"},
        {"bytes": None, "path": "1.png"},
        {"bytes": None, "path": None},
    ]
    source = Parquet(store(tmp_path / "s.parquet", table(0, 3, image=structs)), LABEL)
    assert [source[i]["image"] for i in range(2)] == [png(value=9), png(value=1)]
    with pytest.raises(DataError, match="no image"):
        source[2]


def test_native_types_of_every_kind(tmp_path):
    content = table(
        0,
        2,
        label=pa.array([0, 1], pa.int64()),
        tags=[["a", "b"], []],
        height_cm=pa.array([1.5, float("nan")], pa.float32()),
        boxes=[[[0.0, 0.0, 2.0, 2.0]], []],
        captions=[["x", "y"], ["z"]],
        user=pa.array([7, 7], pa.int32()),
        when=pa.array([0, 1], pa.timestamp("s")),
    )
    columns = {
        "label": ClassLabel(("cat", "dog")),
        "tags": MultiLabel(),
        "height_cm": Number(),
        "boxes": Boxes(1),
        "captions": Captions(),
        "user": Group(),
        "_when": Metadata("when"),
    }
    source = Parquet(store(tmp_path / "t.parquet", content), columns)
    first = source[0]
    assert first["tags"].tolist() == [1, 1]
    assert first["boxes"].tolist() == [[0, 0, 2, 2]]
    assert (first["label"], first["user"], first["height_cm"]) == (0, 0, 1.5)
    assert first["captions"] == ("x", "y")
    assert first["_when"].year == 1970
    assert source.names("user") == ("7",)
    with pytest.raises(DataError, match=r"t.parquet\[1\]: height_cm \(column 'height_cm'\) is mis"):
        source[1]
    bare = Parquet(str(tmp_path / "t.parquet"), {"tags": MultiLabel()}, image_column="")
    assert set(bare[1]) == {"tags"}


def test_keys_from_a_column(tmp_path):
    path = store(tmp_path / "k.parquet", table(0, 4, id=["p", "q", "r", "q"]))
    with pytest.raises(DataError, match=r"k.parquet\[3\]: 'q' is in .*k.parquet\[1\] already"):
        Parquet(path, LABEL, key_column="id")[0]
    path = store(tmp_path / "k.parquet", table(0, 4, id=[4, 3, 2, 1]))
    assert Parquet(path, LABEL, key_column="id").key(1) == "3"
    path = store(tmp_path / "k.parquet", table(0, 2, id=["p", None]))
    with pytest.raises(DataError, match=r"k.parquet\[1\]: column 'id' is empty"):
        Parquet(path, LABEL, key_column="id").key(0)


def test_bad_files_are_refused_by_name(two_files):
    whole = (two_files / "a-1.parquet").read_bytes()
    for name, data in {"cut": whole[:-9], "empty": b"", "text": b"image,label\n" * 9}.items():
        (two_files / f"{name}.parquet").write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}.parquet: is not a sound parquet file"):
            len(Parquet(str(two_files / f"{name}.parquet"), LABEL))
    cases = (
        (table(0, 2, label=[1.5, 2.5]), LABEL, "column 'label' is double, but string in"),
        (table(0, 2).drop_columns(["label"]), LABEL, "b.parquet: no column 'label'; it has"),
        (table(0, 2, image=[1, 2]), LABEL, "column 'image' is int64, but binary in"),
    )
    for content, columns, message in cases:
        other = store(two_files / "b.parquet", content)
        with pytest.raises(DataError, match=message):
            len(Parquet((str(two_files / "a-1.parquet"), other), columns))
    with pytest.raises(DataError, match="column 'image' is int64; images are binary"):
        len(Parquet(str(two_files / "b.parquet"), LABEL))
    with pytest.raises(DataError, match=r"none-\*.parquet: no such file"):
        len(Parquet(str(two_files / "none-*.parquet"), LABEL))
    with pytest.raises(DataError, match="the table has no rows"):
        len(Parquet(store(two_files / "b.parquet", table(0, 0)), LABEL))
    same = str(two_files / "a-1.parquet")
    with pytest.raises(DataError, match="given twice"):
        len(Parquet((same, same), LABEL))


def test_flipped_bits_are_found(two_files):
    """Wherever a bit of a page flips, records come out right or not at all."""
    path = two_files / "a-1.parquet"
    whole = path.read_bytes()
    expected = [Parquet(str(path), LABEL)[i] for i in range(8)]
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(4, len(whole), 60).tolist():
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        source = Parquet(str(path), LABEL)
        for i in range(8):
            try:
                example = source[i]
            except (DataError, IndexError):
                refused += 1
            else:
                assert example["image"] == expected[i]["image"]
    assert refused > 50


def test_files_in_an_fsspec_store(two_files):
    memory = fsspec.filesystem("memory")
    for name in ("a-1.parquet", "a-2.parquet"):
        memory.pipe(f"/pq/{name}", (two_files / name).read_bytes())
    source = Parquet("memory://pq/a-*.parquet", LABEL)
    local = Parquet(str(two_files / "a-*.parquet"), LABEL)
    assert len(source) == 13
    assert [source[i] for i in (12, 3)] == [local[i] for i in (12, 3)]
    assert source.key(9) == "memory:///pq/a-2.parquet[1]"


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="path is '', expected a file, a pattern or several"):
        Parquet("", LABEL)
    with pytest.raises(ValueError, match="row_groups_kept is 0"):
        Parquet("x", LABEL, row_groups_kept=0)
