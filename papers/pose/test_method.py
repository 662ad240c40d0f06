"""POSE: augmenters that change nothing, networks held constant, epochs that follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from papers.pose.augmenters import augment
from papers.pose.method import Pose
from papers.pose.triplet import batch_hard_triplet
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.objectives.classify import Classify
from vision.train.objective import Context, Variables
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step

MODEL = PatchTower(width=8, num_classes=3)


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


def begun(made: Step) -> Any:
    """The state before the first update; nothing is stored yet."""
    variables = drawn(made.objective.init, batch())
    if "stored" in variables.extra_state:
        nothing = jax.tree.map(np.zeros_like, variables.extra_state["stored"])
        variables = variables.merge(extra_state={"stored": nothing})
    return jax.jit(made.init_state)(variables)


@pytest.fixture(scope="module")
def run() -> list[Any]:
    """The states of four updates, two with either augmenter."""
    made = step()
    update, states = jax.jit(made.update), [begun(made)]
    metrics = []
    for _ in range(4):
        state, values = update(states[-1], batch())
        states.append(state)
        metrics.append(values)
    assert all(np.isfinite(value) for values in metrics for value in values.values())
    return states


def test_identity_kernels_give_the_image_back():
    first = np.zeros((3, 3, 3, 4), np.float32)
    second = np.zeros((3, 3, 4, 3), np.float32)
    for c in range(3):
        first[1, 1, c, c] = second[1, 1, c, c] = 1
    image = batch()["image"]
    made = jax.jit(augment)({"first": first, "second": second}, image)
    np.testing.assert_array_equal(made, image)


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
    state = begun(made)
    assert sorted(state.params) == ["model"]
    assert isinstance(made.optimizer, Mapping)
    _, metrics = jax.jit(made.update)(state, data)

    @jax.jit
    def of_classifier(variables: Variables) -> tuple[jax.Array, jax.Array]:
        plain, ctx = Classify(MODEL), Context.evaluation()
        top1 = plain.loss(variables, data, ctx)[1].metrics["top1"]
        return top1, plain.predict(variables, data, ctx)["logits"]

    top1, logits = of_classifier(state.variables)
    assert metrics["attribute_top1"] == top1
    # Probabilities over the temperature in the place of logits.
    likely = softmax(np.asarray(logits)[:10], -1) / 0.1
    expected = -np.mean(log_softmax(likely, -1)[np.arange(10), data["label"][:10]])
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


def test_triplets_are_the_farthest_and_the_nearest():
    x = np.array([[0.0], [1.0], [3.0], [3.5], [9.0]], np.float32)
    labels, valid = np.array([0, 0, 1, 1, 1]), np.array([True] * 4 + [False])

    @jax.jit
    def loss_and_slope(x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(batch_hard_triplet)(x, labels, valid, 2.0)

    # Anchors: 0 (1 to its own, 3 to others), 1 (1, 2), 2 (0.5, 2), 3 (0.5, 2.5); margin 2.
    expected = np.mean([0.0, 1.0, 0.5, 0.0])
    assert loss_and_slope(x, labels)[0] == pytest.approx(expected, abs=1e-5)
    assert loss_and_slope(x, np.arange(5))[0] == 0
    same = np.asarray(loss_and_slope(np.zeros_like(x), labels)[1])
    assert np.isfinite(same).all()
