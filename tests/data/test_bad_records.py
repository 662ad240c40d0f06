from __future__ import annotations

import collections
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vision.data.batches import ALL_BAD, BadRecord
from vision.data.ops.geometry import CenterCrop, RandomFlip, RandomResizedCrop, Resize
from vision.data.ops.values import Decode, ValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.samplers import InOrder
from vision.data.source import DataError
from vision.data.sources.folder import Folder

PHOTO = Image.fromarray(load_sample_images().images[0]).resize((48, 32))
TRAIN_OPS = (Decode(), RandomResizedCrop(8), RandomFlip(), ValueRange())
EVAL_OPS = (Decode(), Resize(10), CenterCrop(8), ValueRange())


def encode(image: Image.Image, container: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, container, **options)
    return out.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTO, exif=exif)


GOOD = {
    "plain.jpg": encode(PHOTO),
    "grey.jpg": encode(PHOTO.convert("L")),
    "cmyk.jpg": encode(PHOTO.convert("CMYK")),
    "rotated.jpg": rotated(),
    "one.jpg": encode(PHOTO.resize((1, 1))),
    "one.png": encode(PHOTO.resize((1, 1)), "PNG"),
    "line.png": encode(PHOTO.resize((1, 60)), "PNG"),
    "palette.png": encode(PHOTO.quantize(8), "PNG"),
    "alpha.png": encode(PHOTO.convert("RGBA"), "PNG"),
    "wide.png": encode(Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)), "PNG"),
    "moving.gif": encode(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(9)]),
    "really_a_png.jpg": encode(PHOTO, "PNG"),
}
BAD = {
    "empty.jpg": b"",
    "text.jpg": b"this is not a picture\n",
    "html.jpg": b"<!DOCTYPE html><html>not found</html>",
    "truncated.jpg": encode(PHOTO)[:500],
    "truncated.png": encode(PHOTO, "PNG")[:-40],
    "flipped.png": encode(PHOTO, "PNG")[:200] + b"\0" + encode(PHOTO, "PNG")[201:],
    "float.tif": encode(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder of every odd but readable file, and every unreadable one."""
    root = tmp_path_factory.mktemp("mixed")
    for label, files in enumerate((GOOD, BAD)):
        (root / f"class{label}").mkdir()
        for name, data in files.items():
            (root / f"class{label}" / name).write_bytes(data)
    return root


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("ops", [TRAIN_OPS, EVAL_OPS], ids=["train", "eval"])
def test_odd_files_are_read(tmp_path, name, ops):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(GOOD[name])
    with EvalData(Folder(str(tmp_path)), 1, ops).loader() as loader:
        batch = next(loader)
    assert batch["image"].shape == (1, 8, 8, 3)
    assert batch["_mask"].all()
    assert np.isfinite(batch["image"]).all()


@pytest.mark.parametrize("name", BAD)
def test_bad_file_stops_the_run_by_name(tmp_path, name):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.jpg").write_bytes(GOOD["plain.jpg"])
    (tmp_path / "a" / name).write_bytes(BAD[name])
    for data in (
        EvalData(Folder(str(tmp_path)), 2, EVAL_OPS, threads=2),
        TrainData(Folder(str(tmp_path)), 2, TRAIN_OPS, threads=0),
    ):
        loader = data.loader() if isinstance(data, EvalData) else data.loader(seed=0)
        with pytest.raises(DataError, match=f"{name}: .*set on_error='mask'"):
            next(loader)


@pytest.mark.parametrize("threads", [0, 3])
def test_bad_files_become_masked_counted_placeholders(mixed, threads):
    source = Folder(str(mixed))
    data = EvalData(source, 4, EVAL_OPS, on_error="mask", threads=threads)
    seen, masks, indices = [], [], []
    with data.loader() as loader:
        for batch in loader:
            bad = loader.take_bad()
            assert len(bad) == ((~batch["_mask"]) & (batch["_index"] >= 0)).sum()
            assert not batch["image"][~batch["_mask"]].any()
            assert not batch["label"][~batch["_mask"]].any()
            seen += bad
            masks += batch["_mask"].tolist()
            indices += batch["_index"].tolist()
        assert loader.take_bad() == []
    assert indices[: len(source)] == list(range(len(source)))
    assert sum(masks) == len(GOOD)
    assert [record.index for record in seen] == list(range(len(GOOD), len(source)))
    assert {record.key.rsplit("/", 1)[1] for record in seen} == set(BAD)
    assert all(isinstance(r, BadRecord) and r.source == source.info.name for r in seen)
    reasons = {r.key.rsplit("/", 1)[1]: r.reason for r in seen}
    assert "empty file" in reasons["empty.jpg"]
    assert "DOCTYPE" in reasons["html.jpg"]
    assert "no agreed range" in reasons["float.tif"]


def test_training_reports_every_occurrence_and_resumes_alike(mixed):
    source = Folder(str(mixed))
    data = TrainData(source, 4, TRAIN_OPS, on_error="mask", threads=2)
    batches, reports = [], []
    with data.loader(seed=3) as loader:
        for _ in range(3 * len(source) // 4):  # almost three epochs
            batches.append(next(loader))
            reports.append(loader.take_bad())
    counts = collections.Counter(r.index for report in reports for r in report)
    assert set(counts) == set(range(len(GOOD), len(source)))
    assert set(counts.values()) <= {2, 3}
    for number, (batch, report) in enumerate(zip(batches, reports, strict=True)):
        rows = np.flatnonzero(~batch["_mask"])
        assert [r.position for r in report] == (number * 4 + rows).tolist()
        assert [r.index for r in report] == batch["_index"][rows].tolist()
    with data.loader(seed=3, first_batch=5) as loader:
        for expected, report in zip(batches[5:9], reports[5:9], strict=True):
            batch = next(loader)
            for name, values in expected.items():
                np.testing.assert_array_equal(batch[name], values)
            assert loader.take_bad() == report


def test_each_process_reports_its_own_rows(mixed):
    data = EvalData(Folder(str(mixed)), 4, EVAL_OPS, on_error="mask")
    found = []
    for process in range(2):
        with data.loader(process_index=process, process_count=2) as loader:
            assert len(list(loader)) == data.num_batches
            found += [r.index for r in loader.take_bad()]
    assert sorted(found) == list(range(len(GOOD), len(GOOD) + len(BAD)))


def test_a_batch_of_bad_records_has_the_shape_of_the_others(mixed):
    data = TrainData(Folder(str(mixed)), 4, EVAL_OPS, sampler=InOrder(), on_error="mask")
    with data.loader(seed=0, first_batch=3) as loader:  # records 12..15 of class1, all bad
        batch = next(loader)
        assert len(loader.take_bad()) == 4
    assert batch["image"].shape == (4, 8, 8, 3)
    assert batch["image"].dtype == np.float32
    assert not batch["_mask"].any()


def test_masking_everything_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(ALL_BAD + 5):
        (tmp_path / "a" / f"{i:03}.jpg").write_bytes(b"text")
    data = TrainData(Folder(str(tmp_path)), 4, TRAIN_OPS, on_error="mask")
    with pytest.raises(DataError, match=f"none of the first {ALL_BAD} records is readable"):
        next(data.loader(seed=0))


def test_a_single_readable_record_is_enough(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(6):
        (tmp_path / "a" / f"{i}.jpg").write_bytes(GOOD["plain.jpg"] if i == 5 else b"text")
    with EvalData(Folder(str(tmp_path)), 4, EVAL_OPS, on_error="mask").loader() as loader:
        masks = [batch["_mask"].tolist() for batch in loader]
    assert masks == [[False] * 4, [False, True, False, False]]
