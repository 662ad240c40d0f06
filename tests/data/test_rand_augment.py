from __future__ import annotations

import collections

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from vision.data.ops.auto import (
    RAND_AUGMENT_OPS,
    RAND_AUGMENT_PAPER_OPS,
    RandAugment,
    apply,
    level,
)

PHOTO = np.ascontiguousarray(load_sample_images().images[1][::6, ::6])
IMAGE = Image.fromarray(PHOTO)


def augment(op: RandAugment, seed: int, image: np.ndarray = PHOTO):
    out = op({"image": image}, np.random.Generator(np.random.Philox(key=seed)))
    return out["image"], out["_draws"]["RandAugment"]["applied"]


def test_no_ops_or_no_probability_is_the_identity():
    assert augment(RandAugment(num_ops=0), 0) == (PHOTO, ())
    assert augment(RandAugment(num_ops=4, probability=0.0), 0) == (PHOTO, ())


def test_magnitude_zero_leaves_what_has_a_neutral_point():
    for name in (
        "Rotate",
        "ShearX",
        "ShearY",
        "TranslateX",
        "TranslateY",
        "SolarizeAdd",
        "Solarize",
        "Color",
        "Contrast",
        "Brightness",
        "Sharpness",
    ):
        for negative in (False, True):
            out = apply(IMAGE, name, level(name, 0.0, negative))
            np.testing.assert_array_equal(np.asarray(out), PHOTO, err_msg=name)


def test_operations_equal_pillow():
    pairs = [
        ("AutoContrast", 0.0, ImageOps.autocontrast(IMAGE)),
        ("Equalize", 0.0, ImageOps.equalize(IMAGE)),
        ("Invert", 0.0, ImageOps.invert(IMAGE)),
        ("Posterize", 2, ImageOps.posterize(IMAGE, 2)),
        ("Solarize", 100, ImageOps.solarize(IMAGE, 100)),
        ("Color", 0.3, ImageEnhance.Color(IMAGE).enhance(0.3)),
        ("Contrast", 1.5, ImageEnhance.Contrast(IMAGE).enhance(1.5)),
        ("Brightness", 1.5, ImageEnhance.Brightness(IMAGE).enhance(1.5)),
        ("Sharpness", 1.5, ImageEnhance.Sharpness(IMAGE).enhance(1.5)),
    ]
    for name, argument, expected in pairs:
        np.testing.assert_array_equal(np.asarray(apply(IMAGE, name, argument)), expected)
    assert not np.asarray(apply(IMAGE, "Posterize", 0)).any()
    added = np.asarray(apply(IMAGE, "SolarizeAdd", 50))
    np.testing.assert_array_equal(added, np.where(PHOTO < 128, PHOTO + 50, PHOTO))


def test_geometry_moves_pixels_and_fills():
    width = IMAGE.width
    out = np.asarray(apply(IMAGE, "TranslateX", 10 / width, (1, 2, 3)))
    np.testing.assert_array_equal(out[:, : width - 10], PHOTO[:, 10:])
    assert (out[:, width - 10 :] == (1, 2, 3)).all()
    turned = apply(Image.fromarray(PHOTO[:60, :60]), "Rotate", 90.0)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(PHOTO[:60, :60]))
    sheared = np.asarray(apply(IMAGE, "ShearX", 0.3))
    assert abs(sheared[0, :-1].astype(int) - PHOTO[0, :-1]).max() < 40
    assert (sheared[-1, -3:] == 128).all()


def test_notes_replay_the_image():
    op = RandAugment(num_ops=3, probability=1.0, method="bilinear")
    for seed in range(20):
        out, applied = augment(op, seed)
        assert len(applied) == 3
        image = IMAGE
        for name, argument in applied:
            image = apply(image, name, argument)
        np.testing.assert_array_equal(out, image)


def test_drawn_uniformly_with_the_stated_probability_and_spread():
    op = RandAugment(num_ops=2, probability=0.5)
    tiny = PHOTO[:4, :4]
    counts: collections.Counter[str] = collections.Counter()
    angles = []
    for seed in range(1500):
        _, applied = augment(op, seed, tiny)
        counts.update(name for name, _ in applied)
        angles += [a for name, a in applied if name == "Rotate"]
    assert set(counts) == set(RAND_AUGMENT_OPS)
    assert abs(sum(counts.values()) - 1500) < 120
    assert max(counts.values()) < 2 * min(counts.values())
    assert 0.3 < np.mean(np.array(angles) > 0) < 0.7
    assert 0.5 < np.std(np.abs(angles)) < 2.5  # 3 degrees per unit of magnitude, clipped at 10
    assert np.abs(angles).max() <= 30


def test_paper_form_has_one_magnitude():
    op = RandAugment(magnitude=5, magnitude_std=0.0, probability=1.0, ops=("Rotate",))
    angles = {abs(a) for seed in range(50) for _, a in augment(op, seed)[1]}
    assert angles == {15.0}


def test_the_ops_of_the_paper_with_identity():
    assert len(RAND_AUGMENT_PAPER_OPS) == 14
    assert set(RAND_AUGMENT_PAPER_OPS) - set(RAND_AUGMENT_OPS) == {"Identity"}
    op = RandAugment(ops=RAND_AUGMENT_PAPER_OPS, magnitude_std=0.0, probability=1.0)
    counts: collections.Counter[str] = collections.Counter()
    for seed in range(700):
        counts.update(name for name, _ in augment(op, seed, PHOTO[:4, :4])[1])
    assert set(counts) == set(RAND_AUGMENT_PAPER_OPS)
    assert sum(counts.values()) == 1400
    assert all(50 < count < 150 for count in counts.values())
    same = RandAugment(num_ops=3, ops=("Identity",), probability=1.0)
    np.testing.assert_array_equal(augment(same, 0)[0], PHOTO)


def test_one_channel():
    grey = PHOTO[:, :, :1]
    op = RandAugment(num_ops=4, probability=1.0)
    for seed in range(10):
        out, _ = augment(op, seed, grey)
        assert out.shape == grey.shape
        assert out.dtype == np.uint8
    only_colour = RandAugment(probability=1.0, ops=("Color",))
    np.testing.assert_array_equal(augment(only_colour, 0, grey)[0], grey)
