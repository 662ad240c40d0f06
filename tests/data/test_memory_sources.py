from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vision.data.source import Source
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits
from vision.data.sources.fake import Fake


def small() -> Arrays:
    return Arrays(
        {"image": np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), "label": np.arange(10)},
        class_names=tuple("abcdefghij"),
    )


@pytest.mark.parametrize(
    "source", [small(), Digits(), Digits("test"), Fake(20, (3, 5), 4, 1)], ids=lambda s: s.info.name
)
def test_source_contract(source: Any):
    together = source.__getitems__(np.array([7, 0, 7]))
    assert isinstance(source, Source)
    assert source.info.num_examples == len(source)
    again = pickle.loads(pickle.dumps(source))
    one = source[7]
    assert set(one) == set(source.info.features)
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[7][name])
        np.testing.assert_array_equal(value, together[name][0])
        np.testing.assert_array_equal(value, together[name][2])
        assert together[name].dtype == np.asarray(value).dtype
    assert source.key(7) == f"{source.info.name}/7"
    one["image"][...] = 0
    assert source[7]["image"].any()


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"different lengths: \{'image': 3, 'label': 2\}"):
        Arrays({"image": np.zeros((3, 1)), "label": np.zeros(2)})
    with pytest.raises(ValueError, match="empty"):
        Arrays({})


def test_arrays_print_briefly_and_hold_encoded_images():
    files = np.array([b"\xff\xd8" * 9, b"\x89PNG\0\0"], dtype=object)
    source = Arrays({"image": files, "label": np.arange(2)})
    assert repr(source) == "Arrays('arrays', image, label, 2 records)"
    assert source[1]["image"] == b"\x89PNG\0\0"


def everything_in(source) -> dict[str, np.ndarray]:
    return source.__getitems__(np.arange(len(source)))


def test_digits_are_the_real_ones_scaled():
    batch = everything_in(Digits("all"))
    assert batch["image"].shape == (1797, 8, 8, 1)
    assert batch["image"].dtype == np.uint8
    levels, labels = load_digits(return_X_y=True)
    scaled = np.rint(np.asarray(levels) * 255 / 16).reshape(1797, 8, 8, 1)
    np.testing.assert_array_equal(batch["image"], scaled)
    np.testing.assert_array_equal(batch["label"], labels)
    assert batch["image"].max() == 255


def test_digits_split_is_disjoint_and_stratified():
    everything, train, test = (everything_in(Digits(s)) for s in ("all", "train", "test"))

    def multiset(*batches):
        rows = [
            np.concatenate([b["image"].reshape(-1, 64), b["label"][:, None]], 1) for b in batches
        ]
        return sorted(map(bytes, np.concatenate(rows).astype(np.uint8)))

    assert multiset(train, test) == multiset(everything)
    assert len(test["label"]) == 359
    counts, held_out = (np.bincount(b["label"]) for b in (everything, test))
    np.testing.assert_array_equal(held_out, np.rint(0.2 * counts))
    assert len(Digits("test", test_fraction=0.5)) in range(893, 904)


def test_digits_split_is_fixed():
    """Results are compared across versions: the split may never change."""
    test = everything_in(Digits("test"))
    assert test["label"][:12].tolist() == [0, 6, 8, 9, 6, 5, 8, 9, 5, 2, 0, 0]
    assert int(test["image"].astype(np.int64).sum()) == 1780004
    other = everything_in(Digits("test", seed=1))
    assert not np.array_equal(test["image"], other["image"])


def test_fake_is_a_function_of_the_index():
    source = Fake(num_examples=8, image_size=16, num_classes=3)
    assert source[5]["image"].shape == (16, 16, 3)
    assert [int(source[i]["label"]) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(source[5]["image"], Fake(100, 16, 3)[5]["image"])
    assert (source[5]["image"] != source[6]["image"]).mean() > 0.9
    assert len(source.info.class_names) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Digits("val"), "split is 'val', expected one of"),  # pyright: ignore[reportArgumentType]
        (lambda: Digits(test_fraction=1.0), "test_fraction is 1.0"),
        (lambda: Fake(0), "num_examples is 0"),
        (lambda: Fake(image_size=(0, 3)), r"image_size\[0\] is 0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
