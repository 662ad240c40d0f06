"""Headers of files from anybody: checked in one pass, and every error named."""

from __future__ import annotations

import io
import json
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vision.config.repeated import first_repeated
from vision.data.columns import Number
from vision.data.source import DataError
from vision.data.sources.manifest import Manifest
from vision.data.sources.npz import Npz
from vision.weights.mapping import WeightsError
from vision.weights.reader import open_weights


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def test_the_first_repeated_item():
    assert first_repeated("abcb") == "b"
    assert first_repeated([3, 1, 2]) is None
    assert first_repeated([]) is None


def test_a_header_of_many_columns_takes_no_time(tmp_path):
    """It took 35 s with 20,000 columns: every name was counted."""
    names = [f"column{i}" for i in range(20_000)]
    file = tmp_path / "wide.csv"
    file.write_text(
        ",".join(["image", *names]) + "\n" + ",".join(["a.png", *["1"] * 20_000]) + "\n"
    )
    start = time.process_time()
    source = Manifest(str(file), {"column7": Number()})
    assert len(source) == 1
    assert time.process_time() - start < 3
    file.write_text(",".join(["image", *names, "column19999"]) + "\n")
    with pytest.raises(DataError, match="two columns 'column19999'"):
        len(Manifest(str(file), {"column7": Number()}))


def test_a_header_of_many_tensors_takes_no_time(tmp_path):
    """It took 107 s where the last of many names came twice."""
    entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    names = [f"t{i}" for i in range(30_000)]
    text = "{" + ",".join(f'"{name}": {entry}' for name in [*names, names[-1]]) + "}"
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    start = time.process_time()
    with pytest.raises(WeightsError, match="t29999 is described twice"):
        open_weights(file)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("names", [("x.npy", "x.npy"), ("x.npy", "x")])
def test_two_arrays_of_one_name_are_refused(tmp_path, names):
    """The last one won."""
    file = tmp_path / "two.npz"
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(names[0], npy(np.zeros(2)))
        archive.writestr(names[1], npy(np.ones(2)))
    with pytest.raises(DataError, match="'x' is there twice"):
        len(Npz(str(file)))
    with pytest.raises(WeightsError, match="x is there twice"):
        open_weights(file)


def damaged(path: Path, kind: str) -> Path:
    """An archive that cannot be read: too large an array, encrypted, or compressed by who knows."""
    array = npy(np.zeros(4, np.float32))
    if kind == "memory":
        array = array.replace(b"(4,), }", b"(%d,), }" % 2**55)
        array = array.replace(b"          \n", b"\n", 1) if len(array) % 64 else array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    if kind == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    elif kind == "compression":
        data[8] = data[central + 10] = 99
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["memory", "encrypted", "compression"])
def test_archives_that_cannot_be_read_are_named(tmp_path, kind):
    file = damaged(tmp_path / f"{kind}.npz", kind)
    with pytest.raises(DataError, match=rf"{kind}\.npz"):
        len(Npz(str(file)))
    with pytest.raises(WeightsError, match=rf"{kind}\.npz"):
        open_weights(file)


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match="a single array"):
        len(Npz(str(tmp_path / "one.npz")))
