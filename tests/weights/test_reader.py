from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vision.weights.mapping import WeightsError
from vision.weights.reader import open_weights, write_safetensors

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.standard_normal((4, 3, 2)).astype(np.float32),
    "b": RNG.standard_normal(5).astype(ml_dtypes.bfloat16),
    "c": np.array([[1.5, -2]], np.float16),
    "scalar": np.array(3.25, np.float32),
    "count": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


def pack(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_what_the_library_writes_is_read(tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, file, {"format": "pt"})
    weights = open_weights(file)
    assert weights.metadata == {"format": "pt"}
    assert set(weights) == set(TENSORS)
    for name, array in TENSORS.items():
        tensor = weights[name]
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(tensor[...], array)
    a = TENSORS["a.weight"]
    for index in ((slice(1, 3),), (slice(None), slice(0, 2), 1), (2,), (slice(3, 0, -2),)):
        np.testing.assert_array_equal(weights["a.weight"][index], a[index])


def test_only_the_rows_asked_for_are_read(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    write_safetensors(file, TENSORS)
    read = []
    fromfile = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *a, **k: read.append(a[2]) or fromfile(*a, **k))
    open_weights(file)["a.weight"][1:2]
    assert read == [3 * 2 * 4]


def test_what_we_write_the_library_reads(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", TENSORS, {"licence": "Apache-2.0"})
    back = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    for name, array in TENSORS.items():
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


GOOD = {"a": entry(0, 8, [2]), "b": entry(8, 12, [1])}
BYTES = bytes(12)
BAD = {
    "empty file": (b"", "truncated or not safetensors"),
    "header longer than the file": (pack(GOOD, BYTES, 5000), "cannot hold the header of 5000"),
    "huge header": (pack(GOOD, BYTES, 1 << 62), "truncated or not safetensors"),
    "not json": (pack(b'{"a": ', BYTES), "not JSON"),
    "not utf-8": (pack(b'{"\xff": 1}', BYTES), "not JSON"),
    "deep json": (pack(b'{"a":' + b"[" * 100_000, BYTES), "not JSON"),
    "a list": (pack([1], BYTES), "not a JSON object"),
    "name twice": (pack(b'{"a": 1, "a": 2}', BYTES), "a is described twice"),
    "truncated data": (pack(GOOD, BYTES[:-1]), "tensor b ends at byte"),
    "bytes at the end": (pack(GOOD, BYTES + b"xy"), "2 bytes after tensor b"),
    "overlap": (pack({**GOOD, "c": entry(4, 12, [2])}, BYTES), "tensor . overlaps tensor ."),
    "hole": (pack({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, BYTES), "4 bytes before"),
    "shape too large": (pack({"a": entry(0, 12, [4])}, BYTES), r"takes 16 bytes.*hold 12"),
    "negative": (pack({"a": entry(0, 12, [-3])}, BYTES), "tensor a has shape"),
    "fraction": (pack({"a": entry(0, 12, [3.0])}, BYTES), "tensor a has shape"),
    "backwards": (pack({"a": entry(12, 0, [3])}, BYTES), "tensor a"),
    "dtype": (pack({"a": entry(0, 12, [3], "F31")}, BYTES), "dtype 'F31'; known are F64"),
    "no offsets": (pack({"a": {"dtype": "F32", "shape": [3]}}, BYTES), "not described by"),
    "metadata": (pack({"__metadata__": {"a": 1}}), "__metadata__"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_safetensors(case, tmp_path):
    content, message = BAD[case]
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        open_weights(file)
    assert str(file) in str(caught.value)


def test_headers_of_any_length_are_no_pickles(tmp_path):
    file = tmp_path / "padded.safetensors"
    for length in (0x80, 0x280, 0x480, 0x10280):
        text = json.dumps(GOOD).encode()
        file.write_bytes(pack(text + b" " * (length - len(text)), BYTES))
        assert set(open_weights(file)) == {"a", "b"}


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_refused_and_never_loaded(tmp_path):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Explosive()))
    for name, content in {
        "model.safetensors": pickle.dumps(Explosive()),
        "other.safetensors": zipped.getvalue(),
        "pytorch_model.bin": zipped.getvalue(),
        "model.pt": pickle.dumps(Explosive()),
    }.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            open_weights(file)
        assert str(file) in str(caught.value)
        assert "torch" in str(caught.value)
        file.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is empty"):
        open_weights(tmp_path)


def shards(folder, **changes):
    write_safetensors(folder / "one.safetensors", {"a": np.array([1, 2], np.float32)})
    write_safetensors(folder / "two.safetensors", {"b": np.array([3], np.float32)})
    weight_map = {"a": "one.safetensors", "b": "two.safetensors", **changes}
    index = {"weight_map": {k: v for k, v in weight_map.items() if v is not None}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards(tmp_path):
    weights = open_weights(shards(tmp_path))
    assert {name: tensor[...].tolist() for name, tensor in weights.items()} == {
        "a": [1, 2],
        "b": [3],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": "../one.safetensors"}, "names a file '../one.safetensors'"),
        ({"a": "/etc/passwd"}, "names a file '/etc/passwd'"),
        ({"a": "three.safetensors"}, "three.safetensors is missing"),
        ({"a": "two.safetensors"}, "says that two.safetensors holds tensor a"),
        ({"b": None, "a": "one.safetensors", "c": "two.safetensors"}, "holds tensor c, but"),
        ({"a": 3}, "weight_map maps tensors to files"),
    ],
)
def test_bad_shards(changes, message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        open_weights(shards(tmp_path, **changes))


def test_a_tensor_that_the_index_does_not_name(tmp_path):
    shards(tmp_path)
    write_safetensors(
        tmp_path / "two.safetensors",
        {"b": np.array([3], np.float32), "z": np.array([3], np.float32)},
    )
    with pytest.raises(WeightsError, match=r"two\.safetensors holds tensor z"):
        open_weights(tmp_path)


def test_links_that_leave_the_folder(tmp_path):
    (tmp_path / "secret").mkdir()
    write_safetensors(tmp_path / "secret" / "x.safetensors", {"a": np.array([1], np.float32)})
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to("../secret/x.safetensors")
    with pytest.raises(WeightsError, match="link that leads out of its folder"):
        open_weights(folder)
    # As in the cache of the hub: a snapshot of links into the blobs of the same repository.
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "blobs" / "1234").write_bytes((tmp_path / "secret/x.safetensors").read_bytes())
    (cache / "snapshots" / "abc" / "model.safetensors").symlink_to("../../blobs/1234")
    assert set(open_weights(cache / "snapshots" / "abc")) == {"a"}


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsError, match="no weights at"):
        open_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"holds no file of weights \(\.safetensors"):
        open_weights(tmp_path)
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"x\.h5 is none of \.safetensors"):
        open_weights(tmp_path / "x.h5")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    file = tmp_path / "m.safetensors"
    write_safetensors(file, {"a": np.zeros(100, np.float32)})
    weights = open_weights(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="ends inside tensor a"):
        weights["a"][...]


def test_npz(tmp_path):
    file = tmp_path / "x.npz"
    half = RNG.standard_normal((3, 2)).astype(ml_dtypes.bfloat16)
    arrays = {"Transformer/x/kernel": np.asfortranarray(TENSORS["a.weight"]), "half": half}
    np.savez(file, **arrays)
    weights = open_weights(file)
    assert {name: t.shape for name, t in weights.items()} == {k: v.shape for k, v in arrays.items()}
    np.testing.assert_array_equal(weights["Transformer/x/kernel"][1:], TENSORS["a.weight"][1:])
    assert weights["half"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weights["half"][...], half)


def test_bad_npz(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, a=np.array([Explosive()], object))
    with pytest.raises(WeightsError, match=r"a\.npy holds Python objects"):
        open_weights(file)
    np.savez(file, a=np.zeros(1000, np.float32))
    whole = file.read_bytes()
    file.write_bytes(whole[:-400])
    with pytest.raises(WeightsError, match="damaged or not an npz"):
        open_weights(file)
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(WeightsError, match="cannot be read"):
        open_weights(file)["a"][...]
    with zipfile.ZipFile(file, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array(header, np.zeros(4, np.float32))
        archive.writestr("a.npy", header.getvalue()[:-4])
    with pytest.raises(WeightsError, match="does not hold the float32 array of shape"):
        open_weights(file)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_every_damaged_byte_of_an_archive(write, tmp_path):
    """Either the file is refused by name, or a change that nothing reads changes nothing."""
    file = tmp_path / "x.npz"
    write(file, a=np.arange(8, dtype=np.float32))
    whole = file.read_bytes()
    refusals = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF if place % 2 else 0x04
        file.write_bytes(damaged)
        try:
            tensors = {name: tensor[...] for name, tensor in open_weights(file).items()}
        except WeightsError as error:
            refusals.append(str(error))
        else:
            assert all(tensor.tolist() == list(range(8)) for tensor in tensors.values())
    assert all(str(file) in refusal for refusal in refusals)
    assert len(refusals) > 0.6 * len(whole)
