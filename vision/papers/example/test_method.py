"""Identities: what must be true of the method whatever it is trained on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.papers.example.method import Example, entropy
from vision.train.objective import Context, Objective, Variables

MODEL = ViT(width=8, depth=1, heads=1, patch=4, num_classes=5)
BATCH = {
    "image": jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), jnp.float32),
    "label": jnp.asarray([0, 1, 2, 3, 4, -1]),
    "_mask": jnp.asarray([True, True, True, True, False, True]),
}
CTX = Context(step=jnp.int32(0), total_steps=10, train=True, key=jax.random.key(0))


@pytest.fixture(scope="module")
def variables() -> Variables:
    return Classify(MODEL).init(jax.random.key(1), BATCH)


def loss(objective: Objective, variables: Variables) -> float:
    return float(objective.loss(variables, BATCH, CTX)[0])


def test_without_weight_it_is_cross_entropy(variables: Variables):
    ours, plain = Example(MODEL, weight=0.0), Classify(MODEL)
    assert loss(ours, variables) == pytest.approx(loss(plain, variables), rel=1e-6)


def test_the_weight_takes_the_mean_entropy_of_rows_that_count(variables: Variables):
    logits = Example(MODEL).predict(variables, BATCH, CTX)["logits"]
    gain = loss(Example(MODEL, weight=0.0), variables) - loss(Example(MODEL, weight=0.3), variables)
    assert gain == pytest.approx(0.3 * float(entropy(logits[:4]).mean()), rel=1e-5)


def test_entropy_of_known_distributions():
    p = np.asarray([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1e-30, 1e-30]])
    np.testing.assert_allclose(entropy(jnp.log(p)), np.log([4, 2]), rtol=1e-6)
