from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vision.data.decode import DecodeError
from vision.data.ops.auto import RandAugment
from vision.data.ops.geometry import (
    CenterCrop,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    crop,
    resize,
)
from vision.data.ops.mask import RandomErasing
from vision.data.ops.values import Decode, Drop, Keep, Normalize, ToRgb, ValueRange

PHOTO = np.ascontiguousarray(load_sample_images().images[1][::4, ::4])  # 107 x 160
RESAMPLING = Image.Resampling


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def run(op, image, seed: int = 0):
    example = {"image": image, "label": np.int32(3)}
    out = op(example, rng(seed))
    assert example["image"] is image
    assert out["label"] == 3
    return out


ALL_OPS = [
    Resize(9),
    Resize((5, 7), "bicubic"),
    CenterCrop(6),
    RandomResizedCrop(8),
    RandomCrop(4, padding=2),
    RandomCrop(4, padding=2, fill="reflect"),
    RandomCrop((3, 9), padding=2, fill="edge"),
    RandomFlip(),
    RandomFlip(axis="vertical"),
    RandAugment(num_ops=5, probability=1.0),
    RandomErasing(probability=1.0),
    ToRgb(),
    ValueRange(-1, 1),
    Decode(),
    Keep(("image", "label")),
]


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (23, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_op_survives_every_size_and_repeats_itself(op, shape, channels):
    image = rng(1).integers(0, 256, (*shape, channels), np.uint8)
    before = image.copy()
    for seed in range(5):
        first, second = run(op, image, seed), run(op, image, seed)
        np.testing.assert_array_equal(first["image"], second["image"])
        assert first.get("_draws") == second.get("_draws")
        assert min(first["image"].shape) >= 1
    np.testing.assert_array_equal(image, before)
    assert dataclasses.is_dataclass(op)
    hash(op)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_equals_pillow(method):
    expected = Image.fromarray(PHOTO).resize((50, 40), RESAMPLING[method.upper()])
    np.testing.assert_array_equal(run(Resize((40, 50), method), PHOTO)["image"], expected)
    grey = Image.fromarray(PHOTO[:, :, 0]).resize((50, 40), RESAMPLING[method.upper()])
    np.testing.assert_array_equal(resize(PHOTO[:, :, :1], 40, 50, method)[:, :, 0], grey)
    both = resize(np.concatenate([PHOTO[:, :, :1]] * 2, axis=2), 40, 50, method)
    np.testing.assert_array_equal(both[:, :, 1], grey)


def test_resize_of_floats_agrees_with_uint8():
    floats = resize(PHOTO.astype(np.float32), 40, 50)
    assert floats.dtype == np.float32
    assert np.abs(floats - resize(PHOTO, 40, 50)).max() <= 1.0


def test_resize_shorter_side():
    assert run(Resize(54), PHOTO)["image"].shape == (54, int(54 * 160 / 107), 3)
    assert run(Resize(54), PHOTO.transpose(1, 0, 2))["image"].shape == (80, 54, 3)
    assert run(Resize(107), PHOTO)["image"] is PHOTO


def test_resize_then_center_crop_is_the_usual_evaluation():
    image = PHOTO
    for op in (Resize(64), CenterCrop(56)):
        image = run(op, image)["image"]
    small = Image.fromarray(PHOTO).resize((int(64 * 160 / 107), 64), RESAMPLING.BILINEAR)
    left, top = round((small.width - 56) / 2), 4
    np.testing.assert_array_equal(image, small.crop((left, top, left + 56, top + 56)))


def test_center_crop_identity_and_padding():
    np.testing.assert_array_equal(run(CenterCrop((107, 160)), PHOTO)["image"], PHOTO)
    out = run(CenterCrop(3), np.full((1, 1, 3), 9, np.uint8))
    expected = np.zeros((3, 3, 3), np.uint8)
    expected[1, 1] = 9
    np.testing.assert_array_equal(out["image"], expected)
    assert out["_draws"]["CenterCrop"]["box"] == (-1, -1, 3, 3)
    # torchvision 0.28 puts 3 rows of padding as 1 and 2, 7 as 3 and 4, and cuts 3 as 2 and 1.
    for side, size, first in ((2, 5, -1), (1, 8, -3), (1, 2, 0), (7, 4, 2)):
        out = run(CenterCrop(size), np.ones((side, size, 3), np.uint8))
        assert out["_draws"]["CenterCrop"]["box"][:2] == (first, 0)


@pytest.mark.parametrize("box", [(-3, -2, 5, 9), (4, 3, 9, 9), (-9, 0, 4, 4), (50, 50, 3, 3)])
def test_crop_outside_is_zero(box):
    image = rng().integers(1, 256, (6, 8, 2), np.uint8)
    canvas = np.zeros((120, 120, 2), np.uint8)
    canvas[20:26, 20:28] = image
    top, left, height, width = box
    expected = canvas[20 + top : 20 + top + height, 20 + left : 20 + left + width]
    np.testing.assert_array_equal(crop(image, *box), expected)


def test_random_resized_crop_is_crop_then_pillow_resize():
    for seed in range(20):
        out = run(RandomResizedCrop(24, method="bicubic"), PHOTO, seed)
        top, left, height, width = out["_draws"]["RandomResizedCrop"]["box"]
        cut = Image.fromarray(PHOTO).crop((left, top, left + width, top + height))
        np.testing.assert_array_equal(out["image"], cut.resize((24, 24), RESAMPLING.BICUBIC))


def test_random_resized_crop_of_everything_is_the_image():
    op = RandomResizedCrop((107, 160), scale=(1.0, 1.0), ratio=(160 / 107, 160 / 107))
    np.testing.assert_array_equal(run(op, PHOTO)["image"], PHOTO)


def test_random_resized_crop_distribution():
    op = RandomResizedCrop(8, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    boxes = np.array([op.draw(300, 300, rng(s)) for s in range(400)])
    area = boxes[:, 2] * boxes[:, 3] / 300**2
    aspect = boxes[:, 3] / boxes[:, 2]
    assert 0.19 < area.min() < 0.23
    assert 0.57 < area.max() < 0.61
    assert abs(area.mean() - 0.4) < 0.02
    assert 0.49 < aspect.min() < 0.55
    assert 1.8 < aspect.max() < 2.03
    assert abs(np.log(aspect).mean()) < 0.05
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 300
    assert abs((boxes[:, 0] + boxes[:, 2] / 2).mean() - 150) < 5


@pytest.mark.parametrize(("rows", "columns"), [(2, 400), (400, 2), (1, 1)])
def test_random_resized_crop_falls_back_to_the_middle(rows, columns):
    op = RandomResizedCrop(8, scale=(0.9, 1.0))
    top, left, height, width = op.draw(rows, columns, rng())
    assert (rows - height) // 2 == top
    assert (columns - width) // 2 == left
    assert max(width, height) <= round(4 / 3 * min(rows, columns))


def test_random_crop_identity_zero_padding_and_reach():
    np.testing.assert_array_equal(run(RandomCrop((107, 160)), PHOTO)["image"], PHOTO)
    corners = set()
    padded = np.pad(PHOTO, ((2, 2), (2, 2), (0, 0)))
    reflected = np.pad(PHOTO, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    for seed in range(200):
        out = run(RandomCrop((107, 160), padding=2), PHOTO, seed)
        top, left, height, width = out["_draws"]["RandomCrop"]["box"]
        corners.add((top, left))
        there = np.s_[top + 2 : top + 2 + height, left + 2 : left + 2 + width]
        np.testing.assert_array_equal(out["image"], padded[there])
        mirrored = run(RandomCrop((107, 160), padding=2, fill="reflect"), PHOTO, seed)
        np.testing.assert_array_equal(mirrored["image"], reflected[there])
    assert corners == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_flip_twice_is_the_identity_and_is_noted():
    for op, flipped in (
        (RandomFlip(1.0), PHOTO[:, ::-1]),
        (RandomFlip(1.0, axis="vertical"), PHOTO[::-1]),
    ):
        once = op({"image": PHOTO}, rng())
        np.testing.assert_array_equal(once["image"], flipped)
        twice = op(once, rng())
        np.testing.assert_array_equal(twice["image"], PHOTO)
        assert list(twice["_draws"]) == ["RandomFlip", "RandomFlip#2"]
        assert twice["_draws"]["RandomFlip"]["flip"] is True
        assert list(once["_draws"]) == ["RandomFlip"]
    assert run(RandomFlip(0.0), PHOTO)["image"] is PHOTO
    share = np.mean(
        [run(RandomFlip(0.3), PHOTO, s)["_draws"]["RandomFlip"]["flip"] for s in range(500)]
    )
    assert abs(share - 0.3) < 0.07


def test_draws_replay_a_point():
    """A pixel marked before the ops is where the notes say it went."""
    for seed in range(20):
        image = np.zeros((40, 60, 1), np.uint8)
        image[17, 23] = 255
        example = {"image": image}
        generator = rng(seed)
        for op in (RandomCrop((36, 52), padding=4), RandomFlip()):
            example = op(example, generator)
        notes = example["_draws"]
        row = 17 - notes["RandomCrop"]["box"][0]
        column = 23 - notes["RandomCrop"]["box"][1]
        if notes["RandomFlip"]["flip"]:
            column = 52 - 1 - column
        assert example["image"][row, column, 0] == 255


def test_value_range_and_normalize():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    out = run(ValueRange(-1, 1), ramp)["image"]
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.ravel(), np.linspace(-1, 1, 256), atol=1e-6)
    assert out.max() == 1.0
    assert out.min() == -1.0
    image = run(ValueRange(), PHOTO)["image"]
    mean, std = tuple(image.mean((0, 1)).tolist()), tuple(image.std((0, 1)).tolist())
    normal = run(Normalize(mean, std), image)["image"]
    np.testing.assert_allclose(normal.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std((0, 1)), 1, atol=1e-3)


def test_to_rgb():
    grey = PHOTO[:, :, :1]
    for image in (grey, grey[:, :, 0]):
        np.testing.assert_array_equal(run(ToRgb(), image)["image"], np.repeat(grey, 3, axis=2))
    assert run(ToRgb(), PHOTO)["image"] is PHOTO
    rgba = np.concatenate([PHOTO, rng().integers(0, 256, (107, 160, 1), np.uint8)], axis=2)
    white = Image.new("RGBA", (160, 107), (255, 255, 255, 255))
    white.alpha_composite(Image.fromarray(rgba, "RGBA"))
    expected = np.asarray(white.convert("RGB")).astype(int)
    assert np.abs(run(ToRgb(), rgba)["image"].astype(int) - expected).max() <= 1


def test_decode_op():
    data = io.BytesIO()
    Image.fromarray(PHOTO).save(data, "PNG")
    np.testing.assert_array_equal(run(Decode(), data.getvalue())["image"], PHOTO)
    assert run(Decode(mode="grey"), data.getvalue())["image"].shape == (107, 160, 1)
    assert run(Decode(), PHOTO)["image"] is PHOTO
    with pytest.raises(DecodeError, match="not an image"):
        run(Decode(), b"<html>")
    with pytest.raises(DecodeError, match="is a str"):
        run(Decode(), "photo.jpg")
    with pytest.raises(DecodeError, match="max_pixels=100"):
        run(Decode(max_pixels=100), data.getvalue())


def test_random_erasing():
    changed = []
    for seed in range(100):
        out = run(RandomErasing(probability=0.5, fill="zero"), PHOTO + 1 * (PHOTO == 0), seed)
        box = out["_draws"]["RandomErasing"]["erased"]
        erased = (out["image"] == 0).all(axis=2)
        changed.append(box is not None)
        if box:
            top, left, height, width = box
            assert erased[top : top + height, left : left + width].all()
            assert erased.sum() == height * width
            assert 0.01 < erased.mean() < 0.35
        else:
            assert not erased.any()
    assert 30 < sum(changed) < 70
    floats = run(RandomErasing(probability=1.0), np.zeros((50, 50, 3), np.float32))["image"]
    assert floats.dtype == np.float32
    assert floats.min() < 0


def test_keep_and_drop():
    example = {"image": PHOTO, "label": 1, "id": "x", "_draws": {}}
    assert set(Keep(("label",))(example, rng())) == {"label", "_draws"}
    assert set(Drop(("id",))(example, rng())) == {"image", "label", "_draws"}
    for op in (Keep(("mask",)), Drop(("mask",))):
        with pytest.raises(ValueError, match="'mask' among"):
            op(example, rng())


@pytest.mark.parametrize(
    ("op", "image", "message"),
    [
        (Resize(8), b"\xff\xd8", "put Decode before Resize"),
        (CenterCrop(8), PHOTO[:, :, 0], "put ToRgb before CenterCrop"),
        (RandomFlip(key="picture"), PHOTO, "no feature 'picture' among image, label"),
        (ValueRange(), PHOTO.astype(np.float32), "expected uint8"),
        (Normalize(), PHOTO, "put ValueRange first"),
        (Normalize(), PHOTO[:, :, :1].astype(np.float32), "1 channels, mean has 3"),
        (RandAugment(), PHOTO.astype(np.float32), "put it before ValueRange"),
        (Resize(8), PHOTO.astype(np.float64), "float64, expected uint8 or float32"),
        (ToRgb(), np.zeros((4, 4, 2), np.uint8), "expected 1, 3"),
    ],
)
def test_wrong_order_of_ops_says_what_to_do(op, image, message):
    with pytest.raises(ValueError, match=message):
        run(op, image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), "size is 0"),
        (lambda: CenterCrop((1, 2, 3)), "size is "),  # pyright: ignore[reportArgumentType]
        (lambda: Resize(8, "cubic"), "method is 'cubic', expected .*bicubic"),  # pyright: ignore
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "scale is "),
        (lambda: RandomCrop(8, padding=-1), "padding is -1"),
        (lambda: RandomCrop(8, fill="mirror"), "fill is 'mirror', expected"),  # pyright: ignore
        (lambda: RandomFlip(1.5), "probability is 1.5"),
        (lambda: RandomFlip(axis="x"), "axis is 'x'"),  # pyright: ignore[reportArgumentType]
        (lambda: ValueRange(1, 1), "low must be less"),
        (lambda: Normalize((0.5,), (0.0,)), r"std\[0\] is 0.0, expected a number > 0"),
        (lambda: Decode(mode="rgba"), "mode is 'rgba'"),  # pyright: ignore[reportArgumentType]
        (
            lambda: RandAugment(ops=("Cutout",)),
            r"ops\[0\] is 'Cutout', expected one of 'Identity', 'AutoContrast'",
        ),
        (lambda: RandAugment(magnitude=11), "magnitude is 11"),
        (lambda: RandomErasing(fill="mean"), "fill is 'mean'"),  # pyright: ignore
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
