from __future__ import annotations

import io
import logging
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from vision.data.source import DataError, Source
from vision.data.sources.folder import Folder


def jpeg(value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, 0, 0)).save(out, "JPEG")
    return out.getvalue()


def put(root, *paths, data: bytes | None = None):
    for i, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(i) if data is None else data)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    put(root, *(f"dog/{i}.jpg" for i in range(10)), *(f"cat/{i}.jpg" for i in range(20)))
    return root


def keys(source: Folder) -> list[str]:
    return [source.key(i) for i in range(len(source))]


def test_files_classes_and_order(pets):
    put(pets, "cat/deep/er/x.PNG")
    source = Folder(str(pets))
    assert isinstance(source, Source)
    assert source.info.class_names == ("cat", "dog")
    assert source.info.name == "pets"
    assert len(source) == 31
    assert "30 .jpg, 1 .png" in source.info.features["image"]
    names = [os.path.relpath(k, pets) for k in keys(source)]
    assert names[:3] == ["cat/0.jpg", "cat/1.jpg", "cat/10.jpg"]
    assert names == sorted(names, key=lambda p: p.split("/"))
    assert [int(source[i]["label"]) for i in range(31)] == [0] * 21 + [1] * 10
    assert source[0]["image"] == (pets / "cat/0.jpg").read_bytes()
    assert source[0]["label"].dtype == np.int32
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_other_files_are_left_out_counted_and_logged(pets, caplog):
    put(pets, "cat/notes.txt", ".DS_Store", "dog/.hidden.jpg", ".cache/x.jpg", data=b"text")
    source = Folder(str(pets))
    with caplog.at_level(logging.WARNING):
        assert len(source) == 30
    assert set(source.left_out) == {"cat/notes.txt", ".DS_Store", "dog/.hidden.jpg", ".cache/x.jpg"}
    assert "4 other files left out" in source.info.features["image"]
    assert "4 files left out" in caplog.text
    assert "cat/notes.txt" in caplog.text


def test_fraction_split_is_stratified_disjoint_and_stable(pets):
    train, val = (Folder(str(pets), part=part, fraction=0.2) for part in ("train", "val"))
    assert sorted(keys(train) + keys(val)) == sorted(keys(Folder(str(pets))))
    assert not set(keys(train)) & set(keys(val))
    assert [int(val[i]["label"]) for i in range(len(val))] == [0] * 4 + [1] * 2
    assert train.info.class_names == val.info.class_names
    assert (train.info.name, val.info.name) == ("pets/train", "pets/val")
    before = set(keys(val))
    put(pets, "cat/new.jpg")
    after = set(keys(Folder(str(pets), part="val", fraction=0.2)))
    assert len(before - after) <= 1
    assert len(after - before) <= 1


def test_fraction_keeps_every_class_in_both_parts(tmp_path):
    put(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg")
    for fraction in (0.01, 0.99):
        for part in ("train", "val"):
            source = Folder(str(tmp_path), part=part, fraction=fraction)
            assert {int(source[i]["label"]) for i in range(len(source))} == {0, 1}


def test_part_folders_share_the_classes_of_train(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/a/9.jpg", "val/c/9.jpg")
    train, val = (Folder(str(tmp_path), part=part) for part in ("train", "val"))
    assert train.info.class_names == val.info.class_names == ("a", "b", "c")
    assert [int(val[i]["label"]) for i in range(2)] == [0, 2]
    put(tmp_path, "val/d/1.jpg")
    with pytest.raises(DataError, match=r"val/d: .*train has no class 'd'"):
        len(Folder(str(tmp_path), part="val"))
    with pytest.raises(DataError, match="look like parts, not classes"):
        len(Folder(str(tmp_path)))


def test_bad_folders_say_what_is_wrong(tmp_path):
    for root, message in (
        (tmp_path / "none", r"none: no such folder; expected .*none/CLASS_NAME/\*.jpg"),
        (tmp_path, "no class folders in it"),
    ):
        with pytest.raises(DataError, match=message):
            len(Folder(str(root)))
    put(tmp_path, "file.txt")
    with pytest.raises(DataError, match="is not a folder"):
        len(Folder(str(tmp_path / "file.txt")))
    put(tmp_path, "a/1.jpg")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b: no image .* in this class folder"):
        len(Folder(str(tmp_path)))
    put(tmp_path, "b/readme.txt")
    with pytest.raises(DataError, match=r"b: no image .* in this class folder"):
        len(Folder(str(tmp_path)))
    put(tmp_path, "b/1.jpg", "A/1.jpg")
    with pytest.raises(DataError, match=r"a: 'a' differs from 'A' .* only in case"):
        len(Folder(str(tmp_path)))
    (tmp_path / "A/1.jpg").unlink()
    (tmp_path / "A").rmdir()
    assert len(Folder(str(tmp_path))) == 2
    put(tmp_path, "stray.jpg")
    with pytest.raises(DataError, match=r"stray.jpg: images belong into class folders"):
        len(Folder(str(tmp_path)))


def test_links_that_leave_the_root_are_refused(pets, tmp_path):
    put(tmp_path, "secret.jpg")
    (pets / "cat/inside.jpg").symlink_to(pets / "cat/0.jpg")
    assert len(Folder(str(pets))) == 31
    (pets / "cat/outside.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match=r"cat/outside.jpg: is a link to .*secret.jpg, outside"):
        len(Folder(str(pets)))
    (pets / "cat/outside.jpg").unlink()
    (pets / "bird").symlink_to(pets / "cat")
    with pytest.raises(DataError, match="bird: is a link to a folder"):
        len(Folder(str(pets)))


def test_a_file_that_vanishes_is_named(pets):
    source = Folder(str(pets))
    assert len(source) == 30
    (pets / "cat/1.jpg").unlink()
    with pytest.raises(DataError, match=r"cat/1.jpg: cannot be read: No such file"):
        source[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "test"}, "part is 'test', expected one of"),
        ({"fraction": 1.0, "part": "val"}, "fraction is 1.0"),
        ({"fraction": 0.1}, "part='all'"),
        ({"extensions": ("JPG",)}, "in lower case"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Folder("x", **arguments)
