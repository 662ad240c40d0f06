"""Parts of a data set and files that are no data, told by what names mean."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from vision.data.decode import EXTENSIONS, FORMATS, decode
from vision.data.source import DataError
from vision.data.sources.folder import Folder
from vision.data.sources.folder_names import is_system_name, look_like_parts, part_of
from vision.data.sources.frames import Frames
from vision.data.sources.webdataset import WebDataset


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(out, "PNG")
    return out.getvalue()


def put(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Test"),
        ("TRAINING", "TESTING"),
        ("training_set", "test_set"),
        ("trainset", "testset"),
        ("train", "val", "pred"),
        ("seg_train", "seg_test", "seg_pred"),
        ("train", "dev"),
        ("train2017", "val2017"),
        ("trainA", "trainB", "testA", "testB"),
        ("Train Data", "Validation-Images"),
        ("train", "test", "extra"),
        ("train",),
        ("train", "test_final"),
        ("train_subset", "valid"),
    ],
)
def test_parts_in_the_place_of_classes_are_refused(tmp_path, names):
    assert look_like_parts(names)
    put(
        tmp_path, *(f"{part}/{c}/{i}.png" for part in names for c in ("cat", "dog") for i in (1, 2))
    )
    for source in (
        Folder(str(tmp_path)),
        Folder(str(tmp_path), part="train", fraction=0.1),
        Frames(str(tmp_path), frames=1),
    ):
        with pytest.raises(DataError, match="look like parts, not classes"):
            len(source)


@pytest.mark.parametrize(
    "names",
    [
        ("car", "train", "bus"),
        ("bullet_train", "freight_train"),
        ("freight_train", "test_tube"),
        ("valid", "invalid"),
        ("positive_test", "negative_test"),
        ("dev", "prod"),
        ("trainer", "tester"),
        ("crash test", "train"),
        ("crash_test", "train", "train_station"),
        ("Litmus Test",),
        ("0", "1"),
    ],
)
def test_classes_that_sound_like_parts_stay_classes(tmp_path, names):
    assert not look_like_parts(names)
    put(tmp_path, *(f"{c}/{i}.png" for c in names for i in (1, 2)))
    assert Folder(str(tmp_path)).info.class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Validation"), ("training", "dev"), ("seg_train", "seg_val")]
)
def test_part_folders_are_found_by_meaning(tmp_path, train, val):
    put(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{val}/b/9.png")
    assert len(Folder(str(tmp_path), part="train")) == 2
    source = Folder(str(tmp_path), part="val")
    assert source.info.class_names == ("a", "b")
    assert [int(source[0]["label"])] == [1]
    assert source.key(0) == str(tmp_path / val / "b/9.png")


def test_two_folders_of_one_part_are_refused(tmp_path):
    put(tmp_path, "Train/a/1.png", "training/a/1.png", "Test/a/1.png")
    with pytest.raises(DataError, match="Train, training all look like part 'train'"):
        len(Folder(str(tmp_path), part="train"))


def test_parts_below_classes_are_refused(tmp_path):
    put(tmp_path, "cat/Train/1.png", "cat/Test/2.png", "dog/Train/1.png", "dog/Test/2.png")
    with pytest.raises(DataError, match="cat: Test, Train look like parts below a class"):
        len(Folder(str(tmp_path)))


def test_part_of_says_which():
    words = {"Train": "train", "VALID": "val", "test_images": "test", "pred": "prediction"}
    assert {name: part_of(name) for name in words} == words
    assert part_of("seg_train") == part_of("cat") == part_of("train_test") == ""


def test_what_file_servers_keep_is_left_out_and_said(tmp_path, caplog):
    put(tmp_path, *(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)))
    junk = [
        *(f"cat/@eaDir/{i}.png/SYNOPHOTO_THUMB_M.png" for i in range(4)),
        "cat/.AppleDouble/0.png",
        "dog/.@__thumb/0.png",
        "dog/._0.png",
        "#recycle/cat/7.png",
        "__MACOSX/cat/0.png",
        "@Recycle/7.png",
        "$RECYCLE.BIN/x.png",
    ]
    put(tmp_path, *junk)
    source = Folder(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert len(source) == 8
    assert source.info.class_names == ("cat", "dog")
    assert set(source.left_out) == set(junk)
    assert "11 files left out (4 in @eaDir, " in caplog.text
    assert "1 hidden" in caplog.text
    assert "4 in @eaDir" in source.info.features["image"]
    assert not is_system_name("cat")
    assert not is_system_name("#1 fan")


def test_every_extension_that_decodes_is_read_everywhere(tmp_path):
    Image.init()
    known = {
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in FORMATS and ending != ".pfm"  # floats, which have no agreed range
    }
    assert known <= set(EXTENSIONS)
    assert ".jfif" in EXTENSIONS
    image = np.full((16, 16, 3), 120, np.uint8)
    for ending in EXTENSIONS:
        kind = "JPEG" if ending == ".mpo" else Image.registered_extensions()[ending]
        out = io.BytesIO()
        Image.fromarray(image).save(out, kind)
        assert np.abs(decode(out.getvalue()).astype(int) - 120).max() <= 3
        path = tmp_path / "a" / f"x{ending.upper()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(out.getvalue())
    assert len(Folder(str(tmp_path))) == len(EXTENSIONS)
    keys = WebDataset("x.tar", {}).image.split(";")
    assert [f".{key}" for key in keys] == list(EXTENSIONS)
