"""The source: every feature, fixed shapes, random access."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pickle

import numpy as np
import pytest

from vision.data.source import Source
from vision.data.sources.scenes import FEATURES, Scenes, agrees, parse
from vision.data.sources.scenes import vocabulary as words

EVERYTHING = Scenes(
    num_examples=40,
    image_size=(24, 32),
    features=tuple(FEATURES),
    num_objects=(1, 4),
    glyph=True,
    artefacts=("blur",),
)


def test_features_have_the_described_shape_and_type():
    described = EVERYTHING.info.features
    assert tuple(described) == tuple(FEATURES)
    for index in range(10):
        example = EVERYTHING[index]
        for name, text in described.items():
            value = example[name]
            if text.startswith("string"):
                assert isinstance(value, str)
                continue
            kind, _, rest = text.partition(",") if "[" not in text else text.partition("[")
            assert value.dtype == kind, name
            shape = tuple(int(n) for n in rest.partition("]")[0].split(",")) if "[" in text else ()
            assert value.shape == shape, name


def test_features_agree_with_one_another():
    for index in range(40):
        example, scene = EVERYTHING[index], EVERYTHING.scene(index)
        valid = example["valid"]
        assert valid.sum() == len(scene.objects)
        assert not example["masks"][~valid].any()
        assert not example["boxes"][~valid].any()
        assert (example["attributes"][~valid] == -1).all()
        for k, thing in enumerate(scene.objects):
            family, shape, _variant, colour, *_ = example["attributes"][k]
            assert words.FAMILIES[family] == thing.family
            assert words.SHAPES[shape] == thing.shape
            assert words.COLOURS[colour] == thing.colour
            assert (example["instances"][example["masks"][k]] == k + 1).all()
            assert (example["segmentation"][example["masks"][k]] == shape + 1).all()
        assert words.SHAPES[example["hierarchy"][1]] == EVERYTHING.class_names[example["label"]]
        assert example["hierarchy"][2] // 3 == example["hierarchy"][1]
        assert example["hierarchy"][1] // 4 == example["hierarchy"][0]
        for name in ("caption", "caption_medium", "caption_long"):
            assert agrees(parse(example[name]), scene)


def test_the_source_keeps_its_contract():
    assert isinstance(EVERYTHING, Source)
    assert len(EVERYTHING) == EVERYTHING.info.num_examples == 40
    assert EVERYTHING.key(17) == "scenes/train/seed0/17"
    assert EVERYTHING.info.num_classes == 16
    assert (EVERYTHING[3]["image"] == EVERYTHING[int(np.int64(3))]["image"]).all()
    for index in (-1, 40):
        with pytest.raises(IndexError, match=r"0\.\.39"):
            EVERYTHING[index]
        with pytest.raises(IndexError):
            EVERYTHING.key(index)
    changed = EVERYTHING[3]
    changed["image"][:] = 0
    assert EVERYTHING[3]["image"].any()


def test_pickled_sources_give_the_same_examples():
    copy = pickle.loads(pickle.dumps(EVERYTHING))
    assert copy == EVERYTHING
    for name, value in copy[5].items():
        assert np.array_equal(value, EVERYTHING[5][name]), name


def test_threads_do_not_disturb_one_another():
    alone = [EVERYTHING[index]["image"] for index in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: EVERYTHING[index]["image"], range(40)))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_gathering_many_equals_stacking():
    batch = EVERYTHING.__getitems__([4, 0, 4])
    for name, value in batch.items():
        assert len(value) == 3
        assert np.array_equal(value[1], EVERYTHING[0][name])
        assert np.array_equal(value[0], value[2])
    with pytest.raises(IndexError):
        EVERYTHING.__getitems__([])


def test_asking_for_less_changes_nothing():
    little = dataclasses.replace(EVERYTHING, features=("image", "label"))
    assert list(little[7]) == ["image", "label"]
    assert (little[7]["image"] == EVERYTHING[7]["image"]).all()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"num_examples": 0}, "num_examples is 0"),
        ({"image_size": 4}, "image_size is 4, expected a whole number >= 8"),
        ({"features": ()}, r"features is \(\), expected .*not empty"),
        ({"features": ("depth",)}, r"features\[0\] is 'depth', expected one of 'image'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(knobs, message):
    with pytest.raises(ValueError, match=message):
        Scenes(**knobs)


def test_pictures_of_many_shapes():
    """Sides and their ratio vary as asked; what is in the picture does not depend on them."""
    various = Scenes(
        num_examples=200,
        image_size=32,
        features=("image", "masks", "boxes"),
        scale_range=(0.5, 2.0),
        aspect_range=(1 / 3, 3.0),
    )
    assert various.info.features["image"] == "uint8[h,w,3], 0..255, RGB"
    shapes = np.array([various.shape_of(i) for i in range(200)])
    for index in range(10):
        example = various[index]
        height, width = shapes[index]
        assert example["image"].shape == (height, width, 3)
        assert example["masks"].shape[1:] == (height, width)
        assert (example["boxes"][:, 2:] <= (height, width)).all()
    side, ratio = np.sqrt(shapes.prod(1)), shapes[:, 1] / shapes[:, 0]
    assert 15 < side.min() < 18 < 55 < side.max() < 65
    assert 0.3 < ratio.min() < 0.45 < 2.3 < ratio.max() < 3.3
    assert abs((ratio > 1).mean() - 0.5) < 0.1
    assert various.scene(3) == Scenes(num_examples=200).scene(3)
    with pytest.raises(ValueError, match="do not stack"):
        various.__getitems__([0, 1])
    with pytest.raises(ValueError, match="fewer than 8 pixels"):
        Scenes(image_size=16, aspect_range=(0.1, 1.0))


def test_drift():
    """With time the light dims and the camera comes near; nothing else changes."""
    still = Scenes(num_examples=50, features=("time",))
    moving = dataclasses.replace(still, drift=0.8)
    for index in range(50):
        time = float(moving[index]["time"])
        before, after = still.scene(index), moving.scene(index)
        assert after.view.brightness == pytest.approx(1 - 0.4 * time)
        assert after.view.zoom == pytest.approx(1 + 0.4 * time)
        assert dataclasses.replace(after, view=before.view) == before
    times = [float(each["time"]) for each in map(still.__getitem__, range(50))]
    assert 0.3 < np.mean(times) < 0.7
    assert max(times) > 0.9
