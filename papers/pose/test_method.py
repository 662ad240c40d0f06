"""POSE: augmenters that change nothing, networks held constant, epochs that follow each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.pose.augmenters import augment
from papers.pose.method import Pose
from papers.pose.triplet import batch_hard_triplet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step

MODEL = ViT(width=16, depth=1, heads=2, patch=4, num_classes=3, pool="mean", head_zero_init=False)


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(12, 8, 8, 3)).astype(np.float32),
        "label": (np.arange(12) % 3).astype(np.int32),
        "_mask": np.arange(12) < 10,
    }


def step(augmenters: int = 2, total: int = 4) -> Step:
    adam = Optimizer(adamw(), 1e-2, rules=(ParameterRule(".*"),))
    optimizers = {"expand": adam, "attribute": adam}
    if not augmenters:
        del optimizers["expand"]
    return Step(
        Pose(MODEL, augmenters, width=4), optimizers, TrainLength(48, 12, total_steps=total)
    )


@pytest.fixture(scope="module")
def run() -> list[Any]:
    """The states of four updates, two with either augmenter."""
    made = step()
    update, states = jax.jit(made.update), [made.init(batch())]
    metrics = []
    for _ in range(4):
        state, found = update(states[-1], batch())
        states.append(state)
        metrics.append(found)
    assert all(np.isfinite(value) for found in metrics for value in found.values())
    return states


def test_identity_kernels_give_the_image_back():
    first = np.zeros((3, 3, 3, 4), np.float32)
    second = np.zeros((3, 3, 4, 3), np.float32)
    for c in range(3):
        first[1, 1, c, c] = second[1, 1, c, c] = 1
    image = jnp.asarray(batch()["image"])
    made = augment({"first": first, "second": second}, image)
    assert float(jnp.mean((made - image) ** 2)) == 0


def test_an_epoch_moves_and_stores_its_own_augmenter(run: list[Any]):
    begun, middle, end = run[0], run[2], run[4]
    for name in ("first", "second"):
        params = [state.params["augmenters"][name] for state in (begun, middle, end)]
        stored = [state.extra_state["stored"][name] for state in (begun, middle, end)]
        assert not np.allclose(params[0][0], params[1][0])
        np.testing.assert_array_equal(params[0][1], params[1][1])
        assert not np.allclose(params[1][1], params[2][1])
        np.testing.assert_array_equal(stored[1][0], params[1][0])
        np.testing.assert_array_equal(stored[1][1], 0)
        # Adam's momentum still moves the first one in the second epoch: what is stored stays.
        np.testing.assert_array_equal(stored[2][0], params[1][0])
        np.testing.assert_array_equal(stored[2][1], params[2][1])


def test_without_augmenters_it_is_a_classifier():
    made, data = step(augmenters=0), batch()
    state = made.init(data)
    assert sorted(state.params) == ["model"]
    assert isinstance(made.optimizer, Mapping)
    plain = dataclasses.replace(
        made, objective=Classify(MODEL), optimizer=made.optimizer["attribute"]
    )
    start = dataclasses.replace(state, opt_state=plain.init_optimizers(state.params))
    _, found = jax.jit(made.update)(state, data)
    _, cold = jax.jit(plain.update)(start, data)
    assert found["attribute_top1"] == cold["top1"]
    logits = plain.predict(state.variables, data)["logits"][:10] / 0.1
    log = jax.nn.log_softmax(logits)
    expected = -np.mean(log[np.arange(10), data["label"][:10]])
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-4)


def test_triplets_are_the_farthest_and_the_nearest():
    x = jnp.array([[0.0], [1.0], [3.0], [3.5], [9.0]])
    labels, valid = jnp.array([0, 0, 1, 1, 1]), jnp.array([True] * 4 + [False])
    # Anchors: 0 (1 to its own, 3 to others), 1 (1, 2), 2 (0.5, 2), 3 (0.5, 2.5); margin 2.
    expected = np.mean([0.0, 1.0, 0.5, 0.0])
    assert batch_hard_triplet(x, labels, valid, 2.0) == pytest.approx(expected, abs=1e-5)
    alone = batch_hard_triplet(x, jnp.arange(5), valid, 2.0)
    assert alone == 0
    same = jax.grad(lambda x: batch_hard_triplet(x, labels, valid, 2.0))(jnp.zeros((5, 1)))
    assert np.isfinite(same).all()
