"""Simplex, higher-order compatibility and its measures, by their definitions."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.d_simplex.method import Stationary
from papers.d_simplex.simplex import compatibility, higher_order, simplex
from tests.models.tower_cases import quick_jit
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.train.objective import Context

MODEL: Any = PatchTower(num_classes=4)
OBJECTIVE = Stationary(MODEL, classes=5)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))
RNG = np.random.default_rng(0)


def batch() -> dict[str, Any]:
    image = np.random.default_rng(1).normal(size=(6, 16, 16, 3)).astype(np.float32)
    mask = np.arange(6) != 4
    return {"image": image, "label": np.array([0, 1, 1, 2, 3, -1], np.int32), "_mask": mask}


@pytest.mark.parametrize("classes", [2, 3, 64])
def test_classes_are_as_far_from_each_other_as_they_can_be(classes: int):
    cosines = simplex(classes) @ simplex(classes).T
    expected = np.where(np.eye(classes), 1, -1 / (classes - 1))
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    np.testing.assert_allclose(simplex(classes).sum(0), 0, atol=1e-5)


def test_the_loss_is_that_of_its_pairs():
    old, new = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    label, valid = jnp.array([0, 1, 1, 2, 0]), jnp.arange(5) < 4
    got = np.asarray(higher_order(jnp.asarray(old), jnp.asarray(new), label, valid, 2.0))
    for i in range(4):
        terms = [2 * old[i] @ new[j] if label[i] != label[j] else 0.0 for j in range(4)]
        assert got[i] == pytest.approx(np.log(np.exp(terms).sum()) - 2 * old[i] @ new[i], rel=1e-4)
    assert got[4] == 0


def test_measures_of_a_stream():
    matrix = np.array([[0.5, 9.0, 9.0], [0.6, 0.7, 9.0], [0.5, 0.8, 0.9]])
    assert compatibility(matrix) == pytest.approx(
        {"average_compatibility": 2 / 3, "average_accuracy": 4.0 / 6}
    )
    assert compatibility(np.array([[0.4]]))["average_compatibility"] == 1


@pytest.fixture(scope="module")
def losses() -> Any:
    following = dataclasses.replace(OBJECTIVE, follows=True, weight=0.25)
    whole = dataclasses.replace(following, weight=1.0)

    @quick_jit
    def values(variables: Any, given: Any) -> Any:
        out = OBJECTIVE.predict(variables, given, CTX)
        each = [o.loss(variables, given, CTX) for o in (OBJECTIVE, following, whole)]
        slope = jax.grad(lambda p: following.loss(variables.merge(params=p), given, CTX)[0])
        return out, [loss for loss, _ in each], slope(variables.params)

    return lambda variables, given: jax.device_get(values(variables, given))


def test_the_head_is_no_parameter_and_the_old_network_is_kept_to(losses: Any):
    given = batch()
    variables = drawn(dataclasses.replace(OBJECTIVE, follows=True).init, given)
    assert set(variables.params) == {"model"}
    out, (plain, following, whole), slope = losses(variables, given)
    assert whole == pytest.approx(plain, rel=1e-5)
    # Rows 4, which is masked, and 5, without a label, count nowhere.
    rows, label = np.arange(4), given["label"][:4]
    logits, z = out["logits"][rows], out["embedding"]
    expected = -(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[rows, label]
    assert plain == pytest.approx(expected.mean(), rel=1e-4)
    assert np.allclose(np.linalg.norm(z, axis=-1), 1, atol=1e-5)
    # ``drawn`` fills the old network anew: its features are others.
    assert following != pytest.approx(plain, rel=1e-3)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(slope["model"]))


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="head of 6 outputs, and the model's has 4"):
        jax.eval_shape(lambda: dataclasses.replace(OBJECTIVE, classes=7).init(CTX.key, batch()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="classes"):
        dataclasses.replace(OBJECTIVE, classes=1)
