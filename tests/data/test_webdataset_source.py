from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
from table_files import png

from vision.data.columns import ClassLabel, MultiLabel, Number
from vision.data.descriptions import Text
from vision.data.ops.values import Decode
from vision.data.pipeline import EvalData
from vision.data.source import DataError, Source
from vision.data.sources.tar_index import _build, load_index
from vision.data.sources.webdataset import WebDataset

COLUMNS = {
    "label": ClassLabel(("cat", "dog"), column="cls"),
    "caption": Text("txt"),
    "tags": MultiLabel(column="json.tags"),
}


def members(first: int, count: int) -> list[tuple[str, bytes]]:
    made: list[tuple[str, bytes]] = []
    for i in range(first, first + count):
        fields = {"tags": ["a", "b"][: i % 3], "weight": i / 2}
        made += [
            (f"./part/{i:04}.PNG", png(value=i)),
            (f"./part/{i:04}.cls", b"%d\n" % (i % 2)),
            (f"./part/{i:04}.json", json.dumps(fields).encode()),
            (f"./part/{i:04}.seg.png", png(value=100 + i)),
            (f"./part/{i:04}.txt", f"picture {i} \u00fc".encode()),
        ]
    return made


def packed(content: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "s-000.tar").write_bytes(packed(members(0, 4)))
    (tmp_path / "s-001.tar").write_bytes(packed(members(4, 3), tarfile.GNU_FORMAT))
    return tmp_path


def one(folder, content: bytes, **options) -> WebDataset:
    (folder / "x.tar").write_bytes(content)
    columns = options.pop("columns", {"label": ClassLabel(("0", "1"), column="cls")})
    return WebDataset(str(folder / "x.tar"), columns, **options)


def test_samples_of_several_shards_in_any_order(shards):
    source = WebDataset(str(shards / "s-{000..001}.tar"), COLUMNS, raw=(("mask", "seg.png"),))
    assert isinstance(source, Source)
    assert source.info.num_examples == len(source) == 7
    assert source.info.class_names == ("cat", "dog")
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    for i in (6, 0, 3, 4, 1, 5, 2):
        example = again[i]
        assert set(example) == set(source.info.features)
        assert example["image"] == png(value=i)
        assert example["mask"] == png(value=100 + i)
        assert example["label"] == i % 2
        assert example["caption"] == f"picture {i} \u00fc"
        assert example["tags"].tolist() == [float(i % 3 > j) for j in range(2)]
    assert source.key(4) == f"{shards}/s-001.tar/part/0004"
    assert source.column("label") == [0, 1, 0, 1, 0, 1, 0]
    assert source.names("tags") == ("a", "b")
    learned = WebDataset(str(shards / "*.tar"), {"label": ClassLabel(column="cls")})
    assert learned.info.class_names == ("0", "1")
    weights = WebDataset(str(shards / "*.tar"), {"w": Number(column="json.weight")}, image="")
    assert weights.column("w") == [i / 2 for i in range(7)]
    with pytest.raises(IndexError):
        source[7]
    assert sorted(os.listdir(shards)) == [
        "s-000.tar",
        "s-000.tar.index.json",
        "s-001.tar",
        "s-001.tar.index.json",
    ]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_offsets_are_those_of_tarfile(tmp_path, form):
    long = "folder" * 14
    content = [(f"{long}/{i}.bin", bytes([i]) * size) for i, size in enumerate((0, 1, 511, 512, 9))]
    if form != tarfile.USTAR_FORMAT:
        content += [(f"{long * 3}/{i}.\u00e9.bin", b"x" * i) for i in range(5, 8)]
    path = tmp_path / "x.tar"
    path.write_bytes(packed(content, form))
    index = load_index(str(path), "")
    found = {
        f"{key}.{extension}": place
        for key, sample in zip(index.keys, index.members, strict=True)
        for extension, place in sample.items()
    }
    with tarfile.open(path) as tar:
        assert found == {m.name: (m.offset_data, m.size) for m in tar}


def test_the_index_is_stored_checked_and_made_anew(shards, monkeypatch, caplog):
    builds = []
    monkeypatch.setattr(
        "vision.data.sources.tar_index._build",
        lambda file, *rest: builds.append(rest[0]) or _build(file, *rest),
    )
    path, stored = shards / "s-000.tar", shards / "s-000.tar.index.json"
    fresh = lambda **options: WebDataset(str(path), COLUMNS, **options)  # noqa: E731
    assert (len(fresh()), len(fresh()), len(builds)) == (4, 4, 1)
    path.write_bytes(packed(members(0, 6)))
    assert (len(fresh()), len(builds)) == (6, 2)
    good = stored.read_bytes()
    size = path.stat().st_size
    beyond = good.replace(b'"cls":[', b'"cls":[%d' % size, 1)
    for bad in (b"", b"{", b"[]", good[:-20], good.replace(b'"version":1', b'"version":0'), beyond):
        stored.write_bytes(bad)
        assert fresh()[5]["label"] == 1
        assert stored.read_bytes() == good
    assert len(builds) == 8
    used = fresh()
    assert used[0]["label"] == 0
    path.write_bytes(packed(members(0, 5)))
    with pytest.raises(DataError, match=r"s-000.tar: changed since it was indexed"):
        used[0]
    (shards / "elsewhere").mkdir()
    assert len(fresh(index_dir=str(shards / "elsewhere"))) == 5
    (name,) = os.listdir(shards / "elsewhere")
    assert name.startswith("s-000.tar.")
    assert len(fresh(index_dir=str(shards / "missing"))) == 5
    assert "is indexed again every time" in caplog.text


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_members_that_are_no_files_are_refused(tmp_path, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(link(kind))
    with pytest.raises(DataError, match=r"x.tar: member 'a.jpg' is (a|of type)"):
        len(one(tmp_path, out.getvalue()))


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg"])
def test_members_outside_the_archive_are_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=rf"x.tar: member '{name}' would lie outside"):
        len(one(tmp_path / "in", packed([("0.jpg", b"x"), (name, b"y")])))
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == ["x.tar"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([("a.cls", b"1"), ("a.CLS", b"0")], r"member 'a.CLS' occurs twice"),
        ([("a.cls", b"1"), ("b.cls", b"0"), ("a.png", b"0")], r"key 'a' occurs twice"),
        ([("readme", b"1")], r"member 'readme' is not called KEY.EXTENSION"),
        ([("d/.hidden", b"1")], r"member 'd/.hidden' is not called KEY.EXTENSION"),
        ([], r"the archive holds no file"),
    ],
)
def test_odd_members_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=f"x.tar: {message}"):
        len(one(tmp_path, packed(content)))


def test_samples_at_fault_are_bad_records(tmp_path):
    content = [
        ("0.png", png()), ("0.cls", b"1"),
        ("1.cls", b"1"),
        ("2.png", png()), ("2.jpg", b"x"), ("2.cls", b"1"),
        ("3.png", png()), ("3.cls", b"\xff"),
        ("4.png", b""), ("4.cls", b"1"),
        ("5.png", png()),
    ]  # fmt: skip
    source = one(tmp_path, packed(content))
    with EvalData(source, 6, (Decode(),), on_error="mask").loader() as loader:
        batch = next(loader)
        bad = loader.take_bad()
    assert batch["_mask"].tolist() == [True, False, False, False, False, False]
    assert [r.key for r in bad] == [f"{tmp_path}/x.tar/{i}" for i in range(1, 6)]
    for record, reason in zip(
        bad,
        (
            "no image among .cls",
            "images .jpg, .png",
            "not UTF-8",
            "empty file",
            "missing",
        ),
        strict=True,
    ):
        assert reason in record.reason


def test_no_cut_and_no_damaged_header_goes_unnoticed(tmp_path):
    content = members(0, 2)
    whole = packed(content)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        headers = [m.offset_data - 512 for m in tar]
        last = max(m.offset_data + m.size for m in tar)
    end = -(-last // 512) * 512  # where the end-of-archive mark starts
    cuts = [0, 1, 511, 512, 700, *headers[1:], end - 600, end - 1, end, end + 100]
    for cut in cuts:
        with pytest.raises(DataError, match=r"x.tar: (ends|is not|member|has a damaged)"):
            len(one(tmp_path, whole[:cut]))
    for at in headers:
        for offset in (0, 120, 130, 150, 156):
            data = bytearray(whole)
            data[at + offset] ^= 0x11
            with pytest.raises(DataError, match=r"x.tar: (has a damaged header|is not a tar)"):
                len(one(tmp_path, bytes(data)))
    with pytest.raises(DataError, match="is compressed with gzip"):
        len(one(tmp_path, gzip.compress(whole)))


def test_negative_and_huge_sizes_neither_hang_nor_read(tmp_path):
    for size in (-512, -(2**40), 2**40):
        info = tarfile.TarInfo("a.jpg")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        with pytest.raises(DataError, match="reaches beyond the archive's"):
            len(one(tmp_path, header + bytes(10240)))
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with pytest.raises(DataError, match="the extended header at byte 0 has 1073741824 bytes"):
        len(one(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))


def test_random_bytes_are_refused_or_read_right(tmp_path):
    whole = packed(members(0, 2), tarfile.PAX_FORMAT)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
            data[at] = int(rng.integers(256))
        source = one(tmp_path, bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        with contextlib.suppress(DataError):
            for i in range(len(source)):
                assert isinstance(source[i]["image"], bytes)
    assert set(os.listdir(tmp_path)) <= {"x.tar", "x.tar.index.json"}


def test_shards_in_an_fsspec_store(shards, tmp_path):
    memory = fsspec.filesystem("memory")
    for name in ("s-000.tar", "s-001.tar"):
        memory.pipe(f"/wds/{name}", (shards / name).read_bytes())
    index_dir = tmp_path / "index"
    index_dir.mkdir()
    remote = WebDataset("memory://wds/s-*.tar", COLUMNS, index_dir=str(index_dir))
    local = WebDataset(str(shards / "s-*.tar"), COLUMNS)
    for i in (6, 0):
        assert remote[i]["image"] == local[i]["image"]
        assert remote[i]["caption"] == local[i]["caption"]
    assert len(os.listdir(index_dir)) == 2
    with pytest.raises(DataError, match=r"memory://wds/none.tar: cannot be read"):
        len(WebDataset("memory://wds/none.tar", COLUMNS))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="shards is '', expected a file, a pattern or several"):
        WebDataset("", COLUMNS)
    with pytest.raises(ValueError, match="a feature is given twice"):
        WebDataset("x.tar", COLUMNS, raw=(("image", "png"),))
