from __future__ import annotations

import logging
import os
import pickle
import time
from typing import Any

import numpy as np
import pytest
from table_files import png

from vision.config.specs import build, spec
from vision.data.pipeline import EvalData
from vision.data.source import DataError, Source
from vision.data.sources.frames import Frames
from vision.data.sources.splits import Split


def clip(root, name: str, count: int, first: int = 0) -> None:
    (root / name).mkdir(parents=True)
    for i in range(count):
        (root / name / f"f{i}.png").write_bytes(png(value=first + i))


@pytest.fixture
def root(tmp_path):
    clip(tmp_path, "run/a", 12)
    clip(tmp_path, "run/b", 7, first=50)
    clip(tmp_path, "walk/c", 9, first=100)
    return tmp_path


def values(source: Frames, index: int) -> list[int]:
    return source[index]["video"][:, 0, 0, 0].tolist()


def test_clips_in_natural_order_with_stride(root):
    source = Frames(str(root), frames=3, stride=2, decoded=True)
    assert isinstance(source, Source)
    assert source.info.class_names == ("run", "walk")
    assert len(source) == source.info.num_examples == 3
    assert [values(source, i) for i in range(3)] == [[0, 2, 4], [50, 52, 54], [100, 102, 104]]
    assert source.column("label") == [0, 0, 1]
    assert source.key(2) == f"{root}/walk/c"
    assert set(source[0]) == set(source.info.features)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1]["video"], source[1]["video"])
    assert source[1]["video"].dtype == np.uint8
    assert source[1]["video"].shape == (3, 4, 6, 3)
    eleven = Frames(str(root / "run"), frames=11, short="repeat", labelled=False, decoded=True)
    assert values(eleven, 0) == list(range(11))  # f10 comes after f9
    encoded = Frames(str(root), frames=2)[0]["frames"]
    assert encoded == (png(value=0), png(value=1))


def test_windows_of_every_kind(root):
    middle = Frames(str(root), frames=3, stride=2, windows="middle", decoded=True)
    assert [values(middle, i)[0] for i in range(3)] == [3, 51, 102]
    every = Frames(str(root), frames=3, stride=2, windows="all", decoded=True)
    assert [values(every, i) for i in range(len(every))] == [
        [0, 2, 4],
        [6, 8, 10],
        [50, 52, 54],
        [100, 102, 104],
    ]
    assert every.column("start") == [0, 6, 0, 0]
    assert every.key(1) == f"{root}/run/a@6"
    assert "7 frames at the ends unused" in every.info.features["video"]


def test_short_clips_are_an_error_or_padded(root):
    with pytest.raises(DataError, match=r"run/b: 7 frames, but 8 at stride 1 need 8"):
        len(Frames(str(root)))
    source = Frames(str(root), frames=5, stride=2, short="repeat", decoded=True)
    assert values(source, 1) == [50, 52, 54, 56, 56]
    assert source[1]["frames_valid"].tolist() == [True] * 4 + [False]
    assert source[0]["frames_valid"].all()


def test_damaged_and_vanished_frames_are_bad_records(root):
    (root / "run/a/f1.png").write_bytes(b"text")
    (root / "run/b/f1.png").write_bytes(png(5, 6))
    config = spec(
        EvalData,
        source=spec(Frames, root=str(root), frames=2, decoded=True),
        batch_size=3,
        on_error="mask",
    )
    with build(config).loader() as loader:
        batch = next(loader)
        bad = loader.take_bad()
    assert batch["_mask"].tolist() == [False, False, True]
    assert batch["video"].shape == (3, 2, 4, 6, 3)
    assert "run/a/f1.png: not an image" in bad[0].reason
    assert "have several sizes" in bad[1].reason
    source = Frames(str(root), frames=2)
    assert len(source) == 3
    (root / "walk/c/f0.png").unlink()
    with pytest.raises(DataError, match=r"walk/c/f0.png: cannot be read"):
        source[2]


def test_parts_of_clips(root):
    part = Split(Frames(str(root), frames=2), "val", (("train", 0.5), ("val", 0.5)))
    assert 0 < len(part) < 3


def test_bad_folders_say_what_is_wrong(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.png").write_bytes(png())
    cases: tuple[tuple[str, Any, str], ...] = (
        ("run/x.png", png(), r"run/x.png: files must be .*/CLASS/CLIP/FRAME"),
        ("run/a/notes.txt", b"x", r"notes.txt: is no image by its extension"),
    )
    for name, data, message in cases:
        (root / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            len(Frames(str(root), frames=2))
        (root / name).unlink()
    (root / "jump").mkdir()
    with pytest.raises(DataError, match="jump: no frames in it"):
        len(Frames(str(root), frames=2))
    (root / "jump").rmdir()
    (root / "run/a/f0.png").unlink()
    os.symlink(outside / "secret.png", root / "run/a/f0.png")
    with pytest.raises(DataError, match=r"f0.png: leads to .*secret.png, outside"):
        Frames(str(root), frames=2)[0]
    with pytest.raises(DataError, match="no such folder"):
        len(Frames(str(root / "none")))
    for options, message in (
        ({"frames": 0}, "frames is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"windows": "last"}, "windows is 'last'"),
        ({"short": "drop"}, "short is 'drop'"),
    ):
        make: Any = Frames
        with pytest.raises(ValueError, match=message):
            make(str(root), **options)


def test_what_is_left_out_is_counted_and_logged(root, caplog):
    for name in ("run/a/._f0.png", "run/@eaDir/a/f0.png", "walk/c/.DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    source = Frames(str(root), frames=3)
    with caplog.at_level(logging.WARNING):
        assert len(source) == 3
    assert "3 files left out (2 hidden, 1 in @eaDir): run/" in caplog.text
    assert "; 3 other files left out (2 hidden, 1 in @eaDir)" in source.info.features["frames"]


def test_many_clips_of_many_classes_are_listed_in_no_time(tmp_path):
    """Every class was looked for among all clips."""
    for i in range(600):
        (tmp_path / f"class{i}" / "clip").mkdir(parents=True)
        (tmp_path / f"class{i}" / "clip" / "0.png").write_bytes(b"")
    start = time.process_time()
    assert len(Frames(str(tmp_path), frames=1)) == 600
    assert time.process_time() - start < 2
