"""Mixup and CutMix beside timm's, given the same shares and boxes (bench/goldens/mixing.py)."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.data.batch_ops import box_weight, cutmix_box, mix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "mixing.npz")
FACTS = json.loads(str(GOLDEN["facts"]))
SIZE = GOLDEN["image"].shape[1:3]
BATCH = {"image": GOLDEN["image"] / np.float32(255), "label": GOLDEN["label"].astype(np.int32)}
blend = jax.jit(
    functools.partial(mix, num_classes=FACTS["classes"], image_key="image", label_key="label")
)


def compare(found, kind: str, i: int) -> None:
    np.testing.assert_allclose(found["image"], GOLDEN[f"{kind}/{i}/image"], atol=1e-6)
    np.testing.assert_allclose(found["label"], GOLDEN[f"{kind}/{i}/label"], atol=1e-6)


@pytest.mark.parametrize("i", range(len(FACTS["cases"])))
def test_mixing_is_that_of_timm(i: int):
    case = FACTS["cases"][i]
    top, bottom, left, right = case["box"]
    weight = box_weight(jnp.array([top, left]), jnp.array([bottom, right]), SIZE)
    compare(blend(BATCH, weight), "cutmix", i)
    compare(blend(BATCH, jnp.full(SIZE, jnp.float32(case["share"]))), "mixup", i)


def test_boxes_are_those_of_timm_which_has_odd_sides_too():
    even = 0
    for case in FACTS["cases"]:
        share, centre = jnp.float32(case["share"]), jnp.array(case["centre"])
        first, last = cutmix_box(centre, share, SIZE)
        odd = np.floor(np.sqrt(1 - case["share"]) * np.array(SIZE)).astype(int) % 2
        top, bottom, left, right = case["box"]
        np.testing.assert_array_equal(np.clip(first, 0, SIZE), (top, left))
        np.testing.assert_array_equal(np.clip(last + odd, 0, SIZE), (bottom, right))
        even += int(np.sum(odd == 0))
    assert 0 < even < 2 * len(FACTS["cases"])
