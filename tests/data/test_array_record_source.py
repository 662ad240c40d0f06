from __future__ import annotations

import concurrent.futures
import json
import os
import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from table_files import png

from vision.data.pipeline import TrainData
from vision.data.source import DataError, Source
from vision.data.sources.array_record import (
    ArrayRecord,
    ArrayRecordPayloads,
    convert,
    pack,
    unpack,
)
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits
from vision.data.sources.folder import Folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "made"
    convert(Digits("test"), str(folder), shards=3)
    return folder


def test_a_converted_source_is_the_source(digits):
    source, original = ArrayRecord(str(digits)), Digits("test")
    assert isinstance(source, Source)
    assert source.info == original.info
    assert pickle.loads(pickle.dumps(source)) == source
    for i in (0, len(source) - 1, *range(50, 300, 7)):
        one, two = source[i], original[i]
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
            assert one[name].dtype == two[name].dtype
        assert source.key(i) == original.key(i)
    source[0]["image"][...] = 0
    assert source[0]["image"].any()
    with pytest.raises(IndexError):
        source[len(source)]
    assert sorted(os.listdir(digits)) == [
        *(f"data-{i:05}-of-00003.array_record" for i in range(3)), "info.json", "keys.txt"
    ]  # fmt: skip


def test_batches_and_threads_agree_with_the_original(digits):
    loaders = [
        TrainData(source, 16, threads=3).loader(seed=1)
        for source in (ArrayRecord(str(digits)), Digits("test"))
    ]
    for _ in range(4):
        one, two = (next(loader) for loader in loaders)
        for name, values in one.items():
            np.testing.assert_array_equal(values, two[name])
    for loader in loaders:
        loader.close()
    source = ArrayRecord(str(digits))
    indices = np.random.default_rng(0).integers(0, len(source), 2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda i: int(source[i]["label"]), indices))
    assert labels == Digits("test").__getitems__(indices)["label"].tolist()


def test_values_of_every_kind_come_back():
    example: dict[str, Any] = {
        "image": png(),
        "caption": "\u00fc",
        "captions": ("a", "b"),
        "n": 3,
        "x": 0.1,
        "yes": True,
        "none": None,
        "meta": {"a": [1, {"b": None}]},
        "scalar": np.float32(2.5),
        "flag": np.bool_(True),
        "big": np.arange(6, dtype=">i4").reshape(2, 3)[:, ::2],
        "empty": np.zeros((0, 4), np.float32),
        "half": np.ones(3, np.float16),
    }
    back = unpack(pack(example))
    assert back.pop("captions") == ["a", "b"]
    example.pop("captions")
    for name, value in example.items():
        np.testing.assert_array_equal(back[name], value)
        if isinstance(value, np.ndarray | np.generic):
            assert back[name].dtype == value.dtype.newbyteorder("=")
            assert back[name].shape == value.shape


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a value of type object"),
        (np.array(["a", None], object), "an array of object"),
        (2**70, "cannot be stored"),
    ],
)
def test_values_that_cannot_be_stored_are_refused(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        pack({"x": value})
    images = np.array([png(), b""], object)
    source = Arrays({"image": images, "x": np.array([1, value], object)}, "odd")
    with pytest.raises(DataError, match=rf"odd/1: .*{message}"):
        convert(source, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []


def array(dtype: str, shape: list, data: bytes) -> bytes:
    inner: Any = msgpack.packb([dtype, shape, data])
    outer: Any = msgpack.packb({"x": msgpack.ExtType(1, inner)})
    return outer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack({"x": np.zeros(9)})[:-1],
        pack({"x": 1}) + b"x",
        msgpack.packb([1]),
        msgpack.packb({1: 2}),
        msgpack.packb({"x": msgpack.ExtType(9, b"")}),
        array("|O", [1], bytes(8)),
        array("<f4", [2], bytes(4)),
        array("<f4", [-1, 0], bytes(4)),
        array("nonsense", [1], bytes(4)),
        array("<f4", ["a"], bytes(4)),
        b"\x91" * 5000,
        pickle.dumps({"x": 1}),
    ],
)
def test_hostile_payloads_are_refused(data):
    with pytest.raises(DataError, match=r"is no MessagePack record of ours|is a list, not a map"):
        unpack(data)


def test_flipped_bits_and_cut_files_are_found(tmp_path):
    folder = tmp_path / "out"
    originals = [np.random.default_rng(i).bytes(300) for i in range(8)]
    convert(Arrays({"image": np.array(originals, object)}, "noise"), str(folder))
    path = folder / "data-00000-of-00001.array_record"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(whole), 150).tolist():
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        try:
            source = ArrayRecord(str(folder))
            for i, original in enumerate(originals):
                if source[i]["image"] != original:
                    pytest.fail(f"byte {at}: record {i} differs silently")
        except DataError:
            refused += 1
    assert refused > 0
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"is not a sound ArrayRecord file"):
            ArrayRecord(str(folder))[0]
    path.unlink()
    with pytest.raises(DataError, match=r"of-00001.array_record: no such file"):
        ArrayRecord(str(folder))[0]


def test_a_bad_record_stops_the_conversion_and_a_half_written_folder_is_no_source(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    for i in range(4):
        (tmp_path / "in" / "a" / f"{i}.png").write_bytes(png())
    source = Folder(str(tmp_path / "in"))
    assert len(source) == 4
    (tmp_path / "in" / "a" / "3.png").unlink()
    out = str(tmp_path / "out")
    with pytest.raises(DataError, match=r"a/3.png: cannot be read.* Leave it out"):
        convert(source, out, shards=2)
    assert os.listdir(out) == ["data-00000-of-00002.array_record"]
    with pytest.raises(DataError, match=r"out: no info.json; write it with"):
        len(ArrayRecord(out))
    (tmp_path / "in" / "a" / "3.png").write_bytes(png(value=9))
    convert(source, out, shards=2)
    assert ArrayRecord(out)[3]["image"] == png(value=9)
    with pytest.raises(DataError, match="holds a converted source already"):
        convert(source, out)
    with pytest.raises(ValueError, match="shards=9"):
        convert(source, str(tmp_path / "other"), shards=9)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 2, "has version 2"),
        ("shards", ["../data-00000-of-00001.array_record"], "names a shard outside its folder"),
        ("records", [5], "4 records, not the 5 of info.json"),
        ("info", None, "convert the source again"),
    ],
)
def test_a_wrong_info_is_refused(tmp_path, key, value, message):
    convert(Arrays({"x": np.arange(4)}), str(tmp_path))
    content = json.loads((tmp_path / "info.json").read_text())
    (tmp_path / "info.json").write_text(json.dumps(content | {key: value}))
    with pytest.raises(DataError, match=message):
        ArrayRecord(str(tmp_path))[0]


def image_only(data: bytes) -> dict[str, Any]:
    if not data.startswith(b"\x89PNG"):
        raise ValueError("is not a PNG")
    return {"image": data}


def test_payloads_of_others(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    for number, payloads in enumerate(([png(), b"x"], [png(value=1)])):
        writer = ArrayRecordWriter(str(tmp_path / f"{number}.array_record"), "group_size:1")
        for payload in payloads:
            writer.write(payload)
        writer.close()
    source = ArrayRecordPayloads(f"{tmp_path}/*.array_record", image_only, (("image", "png"),))
    assert isinstance(source, Source)
    again = pickle.loads(pickle.dumps(source))
    assert again[2] == {"image": png(value=1)}
    assert (len(again), again.info.features) == (3, {"image": "png"})
    with pytest.raises(DataError, match=r"0.array_record\[1\]: is not a PNG"):
        again[1]
    with pytest.raises(DataError, match="reads local files only"):
        len(ArrayRecordPayloads("gs://bucket/x.array_record", image_only))
