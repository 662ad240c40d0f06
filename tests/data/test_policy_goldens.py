"""Augmentations beside timm's, torchvision's and imagecorruptions' (bench/goldens)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.data.ops.auto import RAND_AUGMENT_OPS, RandAugment, apply, level
from vision.data.ops.policies import MIX_OPS, POLICIES, WIDE_OPS, auto_level, wide_level

GOLDEN = Path(__file__).parents[1] / "golden"
POLICY = np.load(GOLDEN / "policies.npz")
FACTS = json.loads(str(POLICY["facts"]))
PHOTO = Image.fromarray(POLICY["photo"])
HEIGHT, WIDTH = POLICY["photo"].shape[:2]


def plain(timm_name: str) -> str:
    """timm's names say which variant they are."""
    return timm_name.removesuffix("Increasing").removesuffix("Rel")


def test_rand_augment_draws_what_timm_draws():
    ops = FACTS["timm"]["ops"]
    assert sorted(plain(op[0]) for op in ops) == sorted(RAND_AUGMENT_OPS)
    ours = RandAugment()
    assert {tuple(op[1:]) for op in ops} == {(ours.probability, ours.magnitude, ours.magnitude_std)}
    assert FACTS["timm"]["num_layers"] == ours.num_ops


def test_rand_augment_is_as_strong_as_timm():
    levels = FACTS["timm"]["levels"]
    assert len(levels) == 12 * 21 * 2
    for key, expected in levels.items():
        name, magnitude, negative = key.split("/")
        found = level(plain(name), float(magnitude), negative == "1")
        assert found == pytest.approx(expected, abs=1e-9), key


@pytest.mark.parametrize("key", [k for k in POLICY.files if k.startswith("timm/")])
def test_rand_augment_pixels_are_those_of_timm(key):
    _, name, magnitude, negative = key.split("/")
    argument = level(plain(name), float(magnitude), negative == "1")
    np.testing.assert_array_equal(apply(PHOTO, plain(name), argument), POLICY[key])


def test_policies_are_those_of_torchvision():
    for name, policies in FACTS["torchvision"]["policies"].items():
        theirs = [tuple((op, p, m or 0) for op, p, m in pair) for pair in policies]
        assert list(POLICIES[name]) == theirs


def spaces():
    for name, space in FACTS["torchvision"]["spaces"].items():
        for op, (values, signed) in space.items():
            for place, value in enumerate(values):
                for sign in (1, -1) if signed else (1,):
                    yield name, op, place, sign, sign * value


def argument_of(space: str, op: str, place: int, sign: int) -> float:
    if space == "auto":
        return auto_level(op, place, sign < 0, (WIDTH, HEIGHT))
    return wide_level(op, place, sign < 0, (WIDTH, HEIGHT))


ENHANCERS = ("Brightness", "Color", "Contrast", "Sharpness")


def test_auto_and_trivial_augment_are_as_strong_as_torchvision():
    assert set(FACTS["torchvision"]["spaces"]["wide"]) == set(WIDE_OPS)
    for space, op, place, sign, expected in spaces():
        if space == "mix":
            continue
        found = argument_of(space, op, place, sign)
        if op.startswith("Translate"):
            # Whole pixels, ours as a share of the side; float32 makes 15.999999 of 16 there.
            found = found * (WIDTH if op[-1] == "X" else HEIGHT)
            expected = int(round(expected, 4))
        elif op in ENHANCERS:
            expected += 1
        assert found == pytest.approx(expected, abs=1e-4), (space, op, place, sign)


@pytest.mark.parametrize("key", [k for k in POLICY.files if k.startswith(("auto/", "wide/"))])
def test_auto_and_trivial_augment_pixels_are_those_of_torchvision(key):
    space, op, place, sign = key.split("/")
    # A positive shift is to the left here and to the right there; signs are drawn.
    turned = -int(sign) if op.startswith("Translate") else int(sign)
    argument = argument_of(space, op, int(place), turned)
    ours = POLICY["photo"] if op == "Identity" else np.asarray(apply(PHOTO, op, argument))
    assert np.abs(ours.astype(int) - POLICY[key]).max() <= 1


def test_aug_mix_has_the_ops_of_torchvision_that_are_no_corruptions():
    space = FACTS["torchvision"]["spaces"]["mix"]
    assert set(MIX_OPS) == set(space) - set(ENHANCERS)
