"""TransHP: with prompts shut out it is the plain ViT; shut in, it is the block on more tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.transhp.level import Level
from papers.transhp.method import TransHP
from tests.block_tower import BlockTower
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.models.transformer import Block, layer_of
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.train.objective import Context
from vision.train.tower import forward

FINE = (0, 0, 1, 1, 2, 2)
MODEL: Any = BlockTower(depth=2, patch=4, num_classes=6)
VIT = ViT(width=16, depth=2, heads=2, patch=4, num_classes=6)
LEVELS = (Level(0, (0, 0, 0, 1, 1, 1), 0.5), Level(1, FINE, 2.0))
KEY = jax.random.key(0)
OBJECTIVE = TransHP(MODEL, LEVELS, label_smoothing=0.1)


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(4, 8, 8, 3)).astype(np.float32),
        "label": np.array([0, 3, 5, -1], np.int32),
        "_mask": np.array([True, True, True, True]),
    }


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(OBJECTIVE.init, batch())


CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def test_shut_out_and_unpaid_prompts_leave_the_plain_vit_and_its_gradient(variables: Any):
    silent = tuple(dataclasses.replace(level, weight=0.0) for level in LEVELS)
    objective = dataclasses.replace(OBJECTIVE, levels=silent, absorb=False)
    plain = Classify(MODEL, label_smoothing=0.1)

    @quick_jit
    def both(variables: Any) -> Any:
        def of(objective: Any, params: Any) -> Any:
            def loss(params: Any) -> jax.Array:
                return objective.loss(variables.merge(params=params), batch(), CTX)[0]

            return jax.value_and_grad(loss)(params)

        params = variables.params
        return of(objective, params), of(plain, {"model": params["model"]})

    (loss, gradient), (expected, wanted) = jax.device_get(both(variables))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    pairs = zip(jax.tree.leaves(gradient["model"]), jax.tree.leaves(wanted["model"]), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
    for leaf in jax.tree.leaves(gradient["prompts"]):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


def test_a_prompting_block_is_the_block_on_the_tokens_and_the_prompts():
    objective = TransHP(VIT, (dataclasses.replace(LEVELS[0], block=1),))
    variables = drawn(objective.init, batch())

    @quick_jit
    def both(variables: Any) -> Any:
        model, level = variables.params["model"], variables.params["prompts"]["level0"]
        coarse = objective.forward(variables, batch()["image"], CTX)[1]
        out = forward(VIT, model, {}, batch()["image"], train=False)[1]
        block = Block(2, 64, 0.0, None, True, VIT.precision, None)
        prompts = jnp.broadcast_to(level["tokens"], (4, 2, 16))
        tokens = jnp.concatenate([out["block00"], prompts], axis=1)
        after, _ = block.apply({"params": layer_of(model["blocks"], 1)}, tokens, None)
        return coarse, jnp.sum(after[:, -2:] * level["weights"], -1)

    (coarse,), expected = both(variables)
    np.testing.assert_allclose(coarse, expected, atol=2e-5)


def test_the_loss_adds_every_level_and_masks_what_has_no_label(variables: Any):
    @quick_jit
    def both(variables: Any) -> Any:
        loss, aux = OBJECTIVE.loss(variables, batch(), CTX)
        return loss, aux, OBJECTIVE.predict(variables, batch(), CTX)

    loss, aux, predictions = jax.device_get(both(variables))
    expected = 0.0
    names = ("logits", "logits/level0", "logits/level1")
    classes = (np.arange(6), np.array(LEVELS[0].ancestors), np.array(FINE))
    for name, table, weight in zip(names, classes, (1.0, 0.5, 2.0), strict=True):
        scores = predictions[name][:3]
        target = np.eye(scores.shape[-1])[table[batch()["label"][:3]]]
        smooth = 0.9 * target + 0.1 / scores.shape[-1]
        log = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        expected -= weight * (smooth * log).sum(-1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert float(aux.weight) == 3
    assert set(aux.metrics) == {"top1", "level0_top1", "level1_top1"}


def test_what_the_image_is_told_changes_its_answer(variables: Any):
    image = batch()["image"]

    @quick_jit
    def logits(first: jax.Array, variables: Any) -> Any:
        known = (first, jnp.zeros(4, jnp.int32))
        return OBJECTIVE.forward(variables, image, CTX, known=known)[0]

    zeros, ones, third = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], np.int32)
    plain, one, other = (np.asarray(logits(each, variables)) for each in (zeros, third, ones))
    np.testing.assert_array_equal(np.abs(plain - one).max(-1) > 1e-6, [False, False, True, False])
    assert np.abs(plain - other).max() > 1e-3


def test_wrong_levels_are_named():
    with pytest.raises(ValueError, match="without a gap"):
        Level(1, (0, 2))
    with pytest.raises(ValueError, match="blocks rising"):
        TransHP(MODEL, LEVELS[::-1])
    for levels, message in (
        ((Level(9, FINE),), "no block09"),
        ((Level(1, (0, 1)),), "2 ancestors for 6 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda levels=levels: TransHP(MODEL, levels).init(KEY, batch()))
