"""DCAL: an image as its own distractor changes nothing; all patches are one more block."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.dcal.attention import rollout
from papers.dcal.method import DCAL
from tests.block_tower import BlockTower
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.train.objective import Context

MODEL: Any = BlockTower(depth=2, patch=4, num_classes=3)
OBJECTIVE = DCAL(MODEL, share=0.25)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def batch(rows: int = 3) -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(rows, 8, 16, 3)).astype(np.float32)
    return {"image": image, "label": np.arange(rows) % 3, "_mask": np.arange(rows) != 2}


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(OBJECTIVE.init, batch())


def test_an_image_is_no_distractor_of_itself_and_others_see_it_as_it_is(variables: Any):
    image = batch()["image"]
    twins = np.repeat(image[:1], 3, axis=0)
    changed = image.copy()
    changed[1] += 1  # the distractor of the first alone

    @quick_jit
    def answers(variables: Any, image: Any) -> Any:
        plain, _ = OBJECTIVE.answers(variables, image, CTX)
        return plain["sa"], OBJECTIVE.distracted(variables, image, CTX)

    plain, same = jax.device_get(answers(variables, twins))
    np.testing.assert_allclose(same, plain, atol=1e-5)
    plain, distracted = jax.device_get(answers(variables, image))
    other, moved = jax.device_get(answers(variables, changed))
    assert np.abs(distracted - plain).max() > 1e-3
    np.testing.assert_allclose(other[[0, 2]], plain[[0, 2]], atol=1e-6)
    assert np.abs(moved[0] - distracted[0]).max() > 1e-3
    np.testing.assert_allclose(moved[2], distracted[2], atol=1e-6)
    # Whoever is alone in a batch is its own distractor, and has what a batch of twins has.
    alone, distracted = jax.device_get(answers(variables, image[:1]))
    np.testing.assert_allclose(distracted, alone, atol=1e-5)
    np.testing.assert_allclose(alone[0], plain[0], atol=1e-5)


def test_what_is_selected_matters_for_patches_and_not_for_the_class_token(variables: Any):
    image = batch()["image"]
    kinds = [
        dataclasses.replace(OBJECTIVE, share=share, read=read)
        for read in ("patches", "class")
        for share in (0.25, 1.0)
    ]

    @quick_jit
    def answers(variables: Any) -> Any:
        return [each.answers(variables, image, Context.evaluation()) for each in kinds]

    few, every, class_few, class_every = jax.device_get(answers(variables))
    np.testing.assert_allclose(class_few[0]["glca"], class_every[0]["glca"], atol=1e-5)
    assert np.abs(few[0]["glca"] - every[0]["glca"]).max() > 1e-3
    reach = few[1]["rollout"]
    assert reach.shape == (3, 8)
    assert (reach >= 0).all()
    assert (reach.sum(1) < 1).all()  # the rest is the class token's own


def test_rollout_is_the_product_of_blocks_and_rows_sum_to_one():
    rng = np.random.default_rng(0)
    weights = rng.random((2, 1, 3, 5, 5)).astype(np.float32)
    weights /= weights.sum(-1, keepdims=True)
    first, second = (0.5 * each.mean(1) + 0.5 * np.eye(5) for each in weights)
    total = np.asarray(rollout(list(jnp.asarray(weights))))
    np.testing.assert_allclose(total, second @ first, rtol=1e-5)
    np.testing.assert_allclose(total.sum(-1), 1, rtol=1e-5)


def test_the_loss_weighs_three_answers_and_predictions_mix_two(variables: Any):
    given = batch()

    @quick_jit
    def both(variables: Any) -> Any:
        loss, aux = OBJECTIVE.loss(variables, given, CTX)
        plain, _ = OBJECTIVE.answers(variables, given["image"], CTX)
        plain["pwca"] = OBJECTIVE.distracted(variables, given["image"], CTX)
        return loss, aux, plain, OBJECTIVE.predict(variables, given, CTX)

    loss, aux, answers, out = jax.device_get(both(variables))
    expected, probabilities = 0.0, {}
    for name, logits in answers.items():
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        probabilities[name] = p
        entropy = -np.log(p[np.arange(2), given["label"][:2]]).mean()
        weight = float(variables.params["uncertainty"][name])
        expected += 0.5 * (np.exp(-weight) * entropy + weight)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert set(aux.metrics) == {"sa_top1", "glca_top1", "pwca_top1"}
    mean = (probabilities["sa"] + probabilities["glca"]) / 2
    np.testing.assert_allclose(np.exp(out["log_probabilities"]), mean, atol=1e-5)
    assert out["embedding"].shape == (3, 16)


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="pool='cls'"):
        DCAL(dataclasses.replace(MODEL, pool="mean"))
    with pytest.raises(ValueError, match="share"):
        DCAL(MODEL, share=0.0)
