from __future__ import annotations

import io
import os
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vision.data.decode import decode
from vision.data.fingerprint import fingerprint
from vision.data.source import DataError, Source
from vision.data.sources.tfds import Tfds


def png(value: int) -> io.BytesIO:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(out, "PNG")
    out.seek(0)
    return out


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "photo": tfds.features.Image(shape=(None, None, 3)),
            "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
            "thumbnail": tfds.features.Image(shape=(None, None, 3)),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), homepage="https://a.b/"
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(7), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"photo": png(i), "kind": i % 2, "thumbnail": png(i), "id": f"x{i}"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    TinyPictures(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def tiny(data_dir: str, **arguments) -> Tfds:
    return Tfds(
        "tiny_pictures", data_dir=data_dir, image_key="photo", label_key="kind", **arguments
    )


def test_reads_encoded_images_and_labels(data_dir):
    source = tiny(data_dir, extra=("id",))
    assert isinstance(source, Source)
    assert len(source) == source.info.num_examples == 7
    assert source.info.class_names == ("cat", "dog")
    assert source.info.name == "tiny_pictures/1.0.0/train"
    assert source.info.homepage == "https://a.b/"
    assert source.key(3) == "tiny_pictures/1.0.0/train/3"
    seen = set()
    for i in range(7):
        example = source[i]
        assert set(example) == {"image", "label", "id"}
        value = int(decode(example["image"])[0, 0, 0])
        assert example["id"] == b"x%d" % value
        assert example["label"] == value % 2
        assert example["label"].dtype == np.int32
        seen.add(value)
    assert seen == set(range(7))


def test_content_is_told_by_the_files(data_dir, tmp_path):
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    before = fingerprint(tiny(str(copy)))
    assert before == fingerprint(tiny(str(copy))) != fingerprint(tiny(str(copy), split="train[:3]"))
    shard = next(copy.rglob("*train*"))
    os.utime(shard, ns=(1, 1))
    assert fingerprint(tiny(str(copy))) != before


def test_split_expressions_no_label_and_pickling(data_dir):
    half = tiny(data_dir, split="train[:3]+test")
    assert len(half) == 6
    unlabelled = Tfds("tiny_pictures", data_dir=data_dir, image_key="photo", label_key="")
    assert set(unlabelled[0]) == {"image"}
    assert unlabelled.info.class_names == ()
    assert pickle.loads(pickle.dumps(half))[2] == half[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "no_such_set"}, "TFDS data set 'no_such_set', data_dir=.*not found"),
        ({"name": "tiny_pictures:9.9.9"}, "9.9.9"),
        ({"name": "tiny_pictures", "image_key": "picture"}, "no feature 'picture' but id, kind"),
        (
            {"name": "tiny_pictures", "image_key": "photo", "label_key": "kind", "extra": ("box",)},
            "no feature 'box'",
        ),
        (
            {"name": "tiny_pictures", "image_key": "photo", "label_key": "", "split": "dev"},
            "Unknown split 'dev'",
        ),
        ({"name": "mnist"}, r"not prepared in .*mnist.*; run: python -c .*download_and_prepare"),
    ],
)
def test_what_is_missing_is_said(data_dir, arguments, message):
    with pytest.raises(DataError, match=message):
        len(Tfds(data_dir=data_dir, **arguments))


def test_a_format_without_random_access_is_refused(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    info = next((tmp_path / "copy").rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"as tfrecord, which has no random access; prepare"):
        len(tiny(str(tmp_path / "copy")))
