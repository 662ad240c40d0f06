"""CCA: a space for every condition from the same tokens; all triplets, and none of the unknown."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.cca.method import ConditionalEmbedding
from papers.cca.triplets import triplet_losses
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.models.vit import ViT
from vision.train.objective import Context

MODEL: Any = ViT(width=8, depth=1, heads=2, patch=4, scan=False)
NAMES = ("shape", "colour")
OBJECTIVE = ConditionalEmbedding(MODEL, NAMES, width=6, heads=2)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
    attributes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [-1, 0], [0, 0]], np.int32)
    return {"image": image, "attributes": attributes, "_mask": np.arange(6) != 5}


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(OBJECTIVE.init, batch())


def test_losses_are_those_of_all_known_triplets():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    values, valid = np.array([0, 0, 1, 1, -1, 0]), np.array([True] * 5 + [False])
    hinge, order = [], []
    for i, p, n in itertools.permutations(range(4), 3):
        if values[i] == values[p] != values[n]:
            gap = x[i] @ x[p] - x[i] @ x[n]
            hinge.append(max(0, 0.2 - gap))
            order.append(gap > 0)
    loss, right, count = jax.jit(triplet_losses, static_argnums=3)(x, values, valid, 0.2)
    assert int(count) == len(hinge) == 8
    np.testing.assert_allclose(loss, np.mean(hinge), rtol=1e-5)
    np.testing.assert_allclose(right, np.mean(order), rtol=1e-5)
    nothing = jax.device_get(
        triplet_losses(jnp.asarray(x), jnp.zeros(6, int), jnp.asarray(valid), 0.2)
    )
    assert nothing == (0, 0, 0)
    alone = jax.jit(triplet_losses, static_argnums=3)(x[:1], values[:1], valid[:1], 0.2)
    assert jax.device_get(alone) == (0, 0, 0)  # a batch of one has no triplet


def test_conditions_swap_spaces_and_leave_the_tokens_alone(variables: Any):
    head = dict(variables.params["condition"])
    swapped = {**head, "queries": head["queries"][::-1]}

    @quick_jit
    def spaces(variables: Any) -> Any:
        return OBJECTIVE.predict(variables, batch(), Context.evaluation())

    out = jax.device_get(spaces(variables))
    other = jax.device_get(spaces(variables.merge(params={"condition": swapped})))
    np.testing.assert_allclose(other["embedding/shape"], out["embedding/colour"], atol=1e-6)
    np.testing.assert_allclose(other["embedding/colour"], out["embedding/shape"], atol=1e-6)
    assert np.abs(out["embedding/shape"] - out["embedding/colour"]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(out["embedding/shape"], axis=1), 1, atol=1e-5)
    assert out["embedding"].shape == (6, 12)


def test_one_space_is_the_same_for_all_and_the_loss_is_the_mean_over_attributes(variables: Any):
    shared = dataclasses.replace(OBJECTIVE, shared=True)
    one = {**variables.params["condition"]}
    one["queries"] = one["queries"][:1]

    @quick_jit
    def both(variables: Any) -> Any:
        single = variables.merge(params={"condition": one})
        spaces, _ = OBJECTIVE.encode(variables, batch(), CTX)
        return (
            OBJECTIVE.loss(variables, batch(), CTX),
            spaces,
            shared.encode(single, batch(), CTX)[0],
        )

    (loss, aux), spaces, alike = jax.device_get(both(variables))
    np.testing.assert_array_equal(alike[:, 0], alike[:, 1])
    np.testing.assert_allclose(alike[:, 0], spaces[:, 0], atol=1e-6)
    given = batch()
    parts = [
        float(
            triplet_losses(
                jnp.asarray(spaces[:, i]), given["attributes"][:, i], given["_mask"], 0.2
            )[0]
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(loss, np.mean(parts), rtol=1e-4)
    assert set(aux.metrics) == {"triplets_shape", "triplets_colour"}


def test_what_cannot_be_is_named():
    three = dataclasses.replace(OBJECTIVE, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="one column each, of the 2 attributes"):
        jax.eval_shape(lambda: three.init(jax.random.key(0), batch()))
    with pytest.raises(ValueError, match="names"):
        dataclasses.replace(OBJECTIVE, names=("a", "a"))
    odd = dataclasses.replace(OBJECTIVE, heads=3)
    with pytest.raises(ValueError, match="heads=3 does not divide the width 8"):
        jax.eval_shape(lambda: odd.init(jax.random.key(0), batch()))
