"""Files of torch.save against what torch reads from them (bench/goldens/weights_torch.py)."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from vision.weights.mapping import LINEAR, MapEntry, Names, WeightsError, load
from vision.weights.reader import open_weights

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weights" / "torch"
VERDICTS = json.loads((GOLDEN / "verdicts.json").read_text())
GOOD = [name for name, verdict in VERDICTS.items() if isinstance(verdict, dict)]


@pytest.mark.parametrize("name", GOOD)
def test_what_torch_loads_bit_for_bit(name):
    weights = open_weights(GOLDEN / f"{name}.pth")
    with np.load(GOLDEN / "expected.npz") as expected:
        for theirs, (dtype, shape) in VERDICTS[name].items():
            tensor = weights[theirs.removeprefix("module.")]
            array = np.ascontiguousarray(tensor[...])
            assert (array.dtype.name, list(tensor.shape)) == (dtype, shape)
            assert array.tobytes() == expected[f"{name}/{theirs}"].tobytes(), theirs
            if len(shape) == 2:
                np.testing.assert_array_equal(tensor[1:, :2], array[1:, :2])
    assert len(weights) == len(VERDICTS[name])


REFUSED = {
    "whole_model": r"asks for torch\.nn\.modules\.container\.Sequential, .*state_dict\(\)",
    "namespace": "asks for argparse.Namespace at 'args', which is .* never run here",
    "numpy_number": r"asks for numpy\._core\.multiarray\.scalar at 'best'",
    "conjugated": r"resolve_conj\(\).* at 'x'",
    "negated": r"resolve_neg\(\) at 'x'",
    "sparse": "asks for torch._utils._rebuild_sparse_tensor at 'x'",
    "quantised": "asks for torch._utils._rebuild_qtensor at 'x'",
    "meta": "asks for torch._utils._rebuild_meta_tensor_no_storage at 'x'",
    "a_tensor": "holds a tensor, not a state dict",
    "averages": r"several state dicts, state_dict and state_dict_ema; .*\['state_dict_ema'\]",
    "program": r"a program \(TorchScript\).*torch\.jit\.load",
    "protocol4": "has the opcode FRAME",
}


def test_every_file_of_the_goldens_is_read_or_refused():
    assert {*GOOD, *REFUSED} == set(VERDICTS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_state_dict(name):
    file = GOLDEN / f"{name}.pth"
    with pytest.raises(WeightsError, match=REFUSED[name]) as caught:
        open_weights(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "torch.save(" in message
    assert "\n" not in message


def members(name="network"):
    with zipfile.ZipFile(GOLDEN / f"{name}.pth") as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(file, found, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return file


def refusal(file, match):
    with pytest.raises(WeightsError, match=match) as caught:
        open_weights(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_that_others_packed(tmp_path):
    file = tmp_path / "x.pth"
    found = members()
    assert len(open_weights(pack(file, found))) == 7
    refusal(pack(file, found, zipfile.ZIP_DEFLATED), "'network/data.pkl' is compressed .* torch")
    whole = (GOLDEN / "network.pth").read_bytes()
    for size in (len(whole) - 1, len(whole) - 30, len(whole) // 2, 40):
        file.write_bytes(whole[:size])
        refusal(file, r"truncated or damaged.*get it anew")
    refusal(pack(file, {k: v for k, v in found.items() if k != "network/data/0"}), "'0', which the")
    refusal(pack(file, {**found, "network/data/0": bytes(8)}), r"432 bytes, but the file holds 8")
    refusal(pack(file, {"x/y/data.pkl": b"", "z": b""}), "none of torch: it has no data.pkl")
    refusal(pack(file, {**found, "network/byteorder": b"big"}), "byteorder is big")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("network/data.pkl", found["network/data.pkl"])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("network/data.pkl", found["network/data.pkl"])
    refusal(file, "'network/data.pkl' is there twice")


def test_members_that_share_bytes(tmp_path):
    """Two entries of the list of members point to one place, as in a zip bomb."""
    file = pack(tmp_path / "x.pth", members())
    with zipfile.ZipFile(file) as archive:
        first, second = (archive.getinfo(f"network/data/{i}").header_offset for i in (0, 1))
        directory = archive.start_dir
    content = bytearray(file.read_bytes())
    place = content.index(struct.pack("<I", second), directory)
    content[place : place + 4] = struct.pack("<I", first)
    file.write_bytes(content)
    refusal(file, "'network/data/1' overlaps member 'network/data/0'")


def test_headers_of_gigabytes_are_not_read(tmp_path):
    file = pack(tmp_path / "x.pth", members())
    content = bytearray(file.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    with file.open("r+b") as opened:
        # A list of members that takes 3 GB, which the file has, as a hole.
        opened.seek(4, os.SEEK_SET)
        opened.truncate(3 << 30)
        opened.seek(0, os.SEEK_END)
        tail = content[end:]
        tail[12:20] = struct.pack("<II", 3 << 30, 0)
        opened.write(tail)
    refusal(file, "list of its members has 3221225472 bytes")
    pickled = bytes(17 << 20)
    refusal(pack(file, {"a/data.pkl": pickled}), "a/data.pkl has 17825792 bytes")


def proto2(*opcodes):
    return b"\x80\x02" + b"".join(opcodes) + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def storage(key="0", kind=b"FloatStorage", count=4):
    parts = (text("storage"), b"ctorch\n" + kind + b"\n", text(key), text("cpu"), number(count))
    return b"(" + b"".join(parts) + b"tQ"


def tensor(shape, strides, offset=0, extras=b"\x89}", held=None):
    sizes = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    parts = (held or storage(), number(offset), *sizes, extras)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(parts) + b"tR"


def state_dict(*values):
    entries = [text(f"x{i}") + value for i, value in enumerate(values)]
    return proto2(b"}(", *entries, b"u")


def described(file, pickled, size=16):
    return pack(file, {"a/data.pkl": pickled, "a/data/0": bytes(range(size))})


def test_the_pickles_of_these_tests_are_such(tmp_path):
    weights = open_weights(described(tmp_path / "x.pth", state_dict(tensor([2, 2], [1, 2]))))
    flat = np.frombuffer(bytes(range(16)), np.float32)
    np.testing.assert_array_equal(weights["x0"][...], flat.reshape(2, 2).T)


def test_names_around_a_compiled_model(tmp_path):
    for around in ("_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        entries = [text(f"{around}{name}") + tensor([2], [1]) for name in ("a", "b.module.c")]
        pickled = proto2(b"}(", *entries, b"u")
        assert [*open_weights(described(tmp_path / "x.pth", pickled))] == ["a", "b.module.c"]


HOSTILE = {
    "code": (state_dict(b"cposix\nsystem\n" + text("true") + b"\x85R"), "asks for posix.system"),
    "nested name": (state_dict(b"ctorch\nhub.load\n"), "asks for torch.hub.load at 'x0'"),
    "builtins": (state_dict(b"cbuiltins\neval\n"), "asks for builtins.eval"),
    "new object": (state_dict(b"ccollections\nOrderedDict\n)\x81"), "opcode NEWOBJ"),
    "instance": (state_dict(b"(iposix\nsystem\n"), "opcode INST at 'x0'"),
    "extension": (state_dict(b"\x82\x01"), "has the opcode EXT1"),
    "shape beyond": (state_dict(tensor([5], [1])), r"tensor x0 of shape \(5,\) reaches beyond"),
    "offset beyond": (state_dict(tensor([2], [1], 3)), "to element 5 of 4"),
    "stride beyond": (state_dict(tensor([2, 2], [9, 1])), "to element 11 of 4"),
    "negative stride": (state_dict(tensor([2], [-1])), "shape or strides are no counts"),
    "negative offset": (state_dict(tensor([2], [1], -1)), "without an offset"),
    "huge": (state_dict(tensor([2**30] * 4, [0] * 4)), "that no computer holds"),
    "axes": (state_dict(tensor([1] * 65, [0] * 65)), "that no computer holds"),
    "hooks": (state_dict(tensor([1], [1], extras=b"\x89}" + text("a") + b"Ns")), "hooks.* 'x0'"),
    "path": (state_dict(tensor([1], [1], held=storage("../0"))), r"storage '\.\./0', which the"),
    "two dtypes": (
        state_dict(tensor([1], [1]), tensor([1], [1], held=storage(kind=b"IntStorage"))),
        "describes storage '0' in two ways",
    ),
    "bytes": (state_dict(tensor([1], [1], held=storage(kind=b"DoubleStorage"))), "of 32 bytes"),
    "no storage": (state_dict(tensor([1], [1], held=text("x"))), "tensor without a storage"),
    "twice": (proto2(b"}(" + (text("a") + tensor([1], [1])) * 2 + b"u"), "two entries 'a'"),
    "name": (proto2(b"}(" + b")" + tensor([1], [1]) + b"u"), "an entry under a tuple"),
    "a text": (state_dict(text("y")), "x0 is no tensor but a str"),
    "an empty one": (proto2(b"}"), "an empty dictionary"),
    "a list": (proto2(b"]"), "holds a list, not a state dict"),
    "no end": (b"\x80\x02}", "is damaged"),
    "memo": (proto2(b"h\x05"), "has nothing number 5"),
    "no mark": (proto2(b"u"), "finds no mark"),
    "stack": (proto2(b"}s"), "too little on the stack"),
    "two": (proto2(b"}}"), "more or less than one object"),
    "deep": (proto2(b"(" * 200_000), "more than 100000 pieces"),
    "call": (state_dict(text("f") + b")R"), "calls what is no function"),
    "build": (state_dict(tensor([1], [1]) + b"}b"), "attributes of what is no dictionary"),
    "module": (state_dict(b"(" + text("module") + b"NNNNtQ"), "refers to what is no storage"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles(case, tmp_path):
    pickled, message = HOSTILE[case]
    refusal(described(tmp_path / "x.pth", pickled), message)


def test_every_damaged_byte_of_a_description(tmp_path):
    """A file whose description is changed anywhere is refused by name."""
    whole = (GOLDEN / "network.pth").read_bytes()
    start = whole.index(b"\x80\x02")
    end = whole.index(b"PK\x03\x04", start)
    file = tmp_path / "x.pth"
    size = len(members()["network/data.pkl"])
    for place in range(start, start + size, 31):
        content = bytearray(whole)
        content[place] ^= 0x11
        file.write_bytes(content)
        refusal(file, r"data\.pkl has been changed")
    assert start + size <= end


@pytest.mark.parametrize("name", ["network", "network_old"])
def test_no_damaged_byte_is_an_error_of_another_kind(name, tmp_path):
    whole = (GOLDEN / f"{name}.pth").read_bytes()
    file = tmp_path / "x.pth"
    refusals, tried = [], 0
    for place in range(0, len(whole), 31):
        content = bytearray(whole)
        content[place] ^= 0xFF if place % 2 else 0x04
        file.write_bytes(content)
        try:
            for tensor in open_weights(file).values():
                tensor[...]
        except WeightsError as error:
            refusals.append(str(error))
        tried += 1
    assert all(str(file) in refusal for refusal in refusals)
    assert 0.2 * tried < len(refusals) < tried


def test_older_files(tmp_path):
    whole = (GOLDEN / "network_old.pth").read_bytes()
    file = tmp_path / "x.pth"
    file.write_bytes(whole[:-1])
    refusal(file, r"storage '\d+' of \d+ bytes is truncated")
    file.write_bytes(whole + b"x")
    refusal(file, "1 bytes belong to no tensor")
    file.write_bytes(pickle.dumps({"a": 1}))
    refusal(file, "a pickle, but none of a state dict")
    for content, kind in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (b"<!doctype html>", "a web page"),
        (b"abc", "no file that torch wrote"),
    ):
        file.write_bytes(content)
        refusal(file, kind)


def test_folders_with_files_of_torch(tmp_path):
    found = (GOLDEN / "network.pth").read_bytes()
    (tmp_path / "anything.pt").write_bytes(found)
    assert len(open_weights(tmp_path)) == 7
    (tmp_path / "pytorch_model.bin").write_bytes(found)
    assert open_weights(tmp_path).source.endswith("pytorch_model.bin")
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "other.pt").write_bytes(found)
    with pytest.raises(WeightsError, match=r"holds anything\.pt, other\.pt; name the one"):
        open_weights(tmp_path)


def test_shards_of_torch(tmp_path):
    for i in range(2):
        pickled = proto2(b"}", text(f"x{i}") + tensor([2], [1], i) + b"s")
        described(tmp_path / f"{i}.bin", pickled)
    index = {"weight_map": {"x0": "0.bin", "x1": "1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    weights = open_weights(tmp_path)
    assert set(weights) == {"x0", "x1"}
    np.testing.assert_array_equal(
        weights["x1"][...], np.frombuffer(bytes(range(4, 12)), np.float32)
    )


def test_memory(tmp_path):
    """Beside the result there is no more than one tensor, or two where one is transposed."""
    count, side = 64, 128
    size = count * side * side * 4
    values = [tensor([side] * 2, [1, side] if i % 2 else [side, 1], i * side**2) for i in range(64)]
    held = storage(count=count * side * side)
    pickled = state_dict(*(v.replace(storage(), held) for v in values))
    file = described(tmp_path / "x.pth", pickled, 0)
    numbers = np.random.default_rng(0).standard_normal(size // 4).astype(np.float32)
    pack(file, {"a/data.pkl": pickled, "a/data/0": numbers.tobytes()})
    target = {
        "params": {f"x{i}": jax.ShapeDtypeStruct((side, side), np.float32) for i in range(64)}
    }
    names = Names(tuple(MapEntry(f"params.x{i}", (f"x{i}",), LINEAR) for i in range(count)))
    tracemalloc.start()
    try:
        found = load(names, open_weights(file), target)["params"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    parts = numbers.reshape(count, side, side)
    for i in (0, 1, 63):
        np.testing.assert_array_equal(found[f"x{i}"], parts[i] if i % 2 else parts[i].T)
    assert peak <= 1.05 * size + 200_000


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    file = described(tmp_path / "x.pth", state_dict(tensor([2, 2], [2, 1]), tensor([2], [2])))
    read = []
    fromfile = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda *a, **k: read.append(a[2]) or fromfile(*a, **k))
    weights = open_weights(file)
    assert read == []
    weights["x0"][1:]
    weights["x1"][...]
    assert read == [8, 12]
    content = io.BytesIO(file.read_bytes())
    file.write_bytes(content.getvalue()[:100])
    with pytest.raises(WeightsError, match="ends inside tensor x1"):
        weights["x1"][...]
