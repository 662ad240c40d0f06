"""GLSim: planted patches give the box, all patches the image; the crop has its own part."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.glsim.method import GLSim
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.blocks.crops import box_of_highest, crop_and_resize
from vision.models.vit import ViT
from vision.train.objective import Context

MODEL: Any = ViT(width=16, depth=1, heads=2, patch=4, num_classes=3, scan=False)
OBJECTIVE = GLSim(MODEL, count=2)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(3, 12, 16, 3)).astype(np.float32)
    return {"image": image, "label": np.array([0, 2, -1], np.int32), "_mask": np.ones(3, bool)}


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(OBJECTIVE.init, batch())


def test_the_box_holds_the_patches_of_highest_score():
    scores = np.zeros((2, 12), np.float32)  # 3 rows of 4
    scores[0, [1, 6]] = 1  # (0, 1) and (1, 2)
    scores[1, [11, 4]] = 1  # (2, 3) and (1, 0)
    boxes = box_of_highest(jnp.asarray(scores), (3, 4), 2)
    np.testing.assert_array_equal(boxes, [[0, 1, 2, 3], [1, 0, 3, 4]])
    all_of_them = box_of_highest(jnp.asarray(scores), (3, 4), 12)
    np.testing.assert_array_equal(all_of_them, [[0, 0, 3, 4]] * 2)
    # One patch is a box of one patch, and a crop is never smaller.
    one = box_of_highest(jnp.asarray(scores), (3, 4), 1)
    np.testing.assert_array_equal(one, [[0, 1, 1, 2], [1, 0, 2, 1]])


def test_a_crop_of_the_image_is_the_image_and_a_part_is_enlarged():
    image = batch()["image"]
    whole = jnp.array([[0, 0, 12, 16]] * 3)
    crop = quick_jit(crop_and_resize)
    np.testing.assert_allclose(crop(image, whole), image, atol=1e-6)
    steps = np.zeros_like(image)
    steps[:, 4:8, 8:12] = np.arange(4)[:, None, None]  # one step a row, in one box
    part = np.asarray(crop(steps, jnp.array([[4, 8, 8, 12]] * 3)))[0, :, :, 0]
    # Three rows for one: the middle of each is on the pixel's centre.
    np.testing.assert_allclose(part[1::3, 8], np.arange(4), atol=1e-5)
    np.testing.assert_allclose(part[4:8, 8], [1, 4 / 3, 5 / 3, 2], atol=1e-5)


def test_all_patches_see_the_image_twice_and_no_crop_sees_it_once(variables: Any):
    image = batch()["image"]
    all_of_them = dataclasses.replace(OBJECTIVE, count=12)
    none = dataclasses.replace(OBJECTIVE, choose="none")

    @quick_jit
    def answers(variables: Any) -> Any:
        ctx = Context.evaluation()
        three = [each.forward(variables, image, ctx) for each in (OBJECTIVE, all_of_them, none)]
        tokens = jnp.asarray(three[1][1]["box"])
        return [logits for logits, _ in three], three[0][1], tokens

    (logits, twice, once), out, whole = jax.device_get(answers(variables))
    np.testing.assert_array_equal(whole, [[0, 0, 12, 16]] * 3)
    # Two equal views attend to each other as one attends to itself.
    np.testing.assert_allclose(twice, once, atol=1e-5)
    assert np.abs(logits - once).max() > 1e-3
    assert out["scores"].shape == (3, 12)
    assert np.abs(out["scores"]).max() <= 1 + 1e-5
    best = np.argsort(out["scores"], 1)[:, -2:]
    rows, columns = best // 4, best % 4
    expected = np.stack([rows.min(1), columns.min(1), rows.max(1) + 1, columns.max(1) + 1], 1)
    np.testing.assert_array_equal(out["box"], 4 * expected)


def test_the_loss_learns_through_both_views_and_not_through_the_choice(variables: Any):
    given = batch()

    @quick_jit
    def step(params: Any) -> Any:
        def loss(params: Any) -> Any:
            return OBJECTIVE.loss(variables.merge(params=params), given, CTX)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, aux), gradient = jax.device_get(step(variables.params))
    assert np.isfinite(loss)
    assert float(aux.weight) == 2
    assert 0 < aux.metrics["crop"] <= 1
    assert np.abs(gradient["model"]["patch_embed"]["kernel"]).max() > 0
    assert not np.abs(gradient["model"]["head"]["kernel"]).any()  # another head answers


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="pool='cls'"):
        GLSim(dataclasses.replace(MODEL, pool="mean"))
    with pytest.raises(ValueError, match="count=13, but an image has 12"):
        jax.eval_shape(
            lambda: dataclasses.replace(OBJECTIVE, count=13).init(jax.random.key(0), batch())
        )
    smaller: Any = batch() | {"image": np.zeros((3, 3, 3, 3), np.float32)}  # than a patch
    with pytest.raises(ValueError, match="3x3 is not divisible by the patch 4x4: resize"):
        jax.eval_shape(lambda: OBJECTIVE.init(jax.random.key(0), smaller))
