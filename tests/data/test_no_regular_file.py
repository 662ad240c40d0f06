"""A pipe, a socket or a device in the place of a file is a bad record, and nobody waits for it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.data import files, ops
from vision.data.columns import ClassLabel
from vision.data.pipeline import EvalData
from vision.data.prompts import read_json
from vision.data.samplers import WeightedSampler, bound
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.computed import Computed
from vision.data.sources.folder import Folder
from vision.data.sources.frames import Frames
from vision.data.sources.manifest import Manifest
from vision.data.sources.npz import Npz
from vision.data.sources.parquet import Parquet
from vision.data.sources.webdataset import WebDataset
from vision.evaluators.accuracy.hierarchy import read_paths
from vision.report.retrieval_pictures import ImageFolder, Prepare

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
PREPARE = Prepare({}, (), "image", (8, 8, 3))
MESSAGE = "is a pipe, socket or device, and no regular file"


@pytest.fixture
def root(tmp_path) -> Path:
    for i in range(2):
        path = tmp_path / "images" / "cat" / "clip" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    os.mkfifo(tmp_path / "images" / "cat" / "clip" / "2.png")
    return tmp_path


@pytest.fixture(autouse=True)
def no_waiting():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 60


def test_folders_and_tables_list_it_as_a_bad_record(root):
    rows = "".join(f"images/cat/clip/{i}.png,cat\n" for i in range(3))
    (root / "t.csv").write_text("image,label\n" + rows)
    for source in (
        Folder(str(root / "images")),
        Manifest(str(root / "t.csv"), {"label": ClassLabel()}),
    ):
        with pytest.raises(DataError, match=rf"2\.png: {MESSAGE}"):
            source[2]
        data = EvalData(source, 3, (ops.Decode(),), on_error="mask", threads=0)
        with data.loader() as loader:
            assert next(loader)["_mask"].tolist() == [True, True, False]
            assert "2.png" in loader.take_bad()[0].key
    with pytest.raises(DataError, match=MESSAGE):
        Frames(str(root / "images"), frames=3)[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda path: len(Manifest(path, {"label": ClassLabel()})),
        lambda path: len(Npz(path)),
        lambda path: len(Parquet(path, {"label": ClassLabel()})),
        lambda path: len(WebDataset(path, {})),
        lambda path: bound(WeightedSampler(path), Arrays({"x": np.zeros(2)})),
        lambda path: Computed(Arrays({"x": np.zeros(2)}), path, "y").values,
        lambda path: read_json(path),
        lambda path: read_paths(path),
    ],
)
def test_no_reader_waits_for_a_pipe(tmp_path, read):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    with pytest.raises(DataError, match=MESSAGE):
        read(str(path))


def test_sockets_and_devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.png")
        with pytest.raises(DataError, match=r"s\.png: cannot be read"):
            files.read_bytes("s.png")
    with pytest.raises(DataError, match=MESSAGE):
        files.read_bytes("/dev/zero")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        files.read_bytes(str(tmp_path))


def test_pictures_of_the_retrieval_page(root):
    pictures = ImageFolder(root / "images", ("cat/clip/2.png",), PREPARE)
    with pytest.raises(DataError, match=MESSAGE):
        pictures[0]
