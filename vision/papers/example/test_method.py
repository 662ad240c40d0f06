"""Identities: what must be true of the method whatever it is trained on."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.models.plain_conv import PlainConv
from vision.objectives.classify import Classify
from vision.papers.example.method import Example, entropy
from vision.train.objective import Context, Objective, Variables

# The smallest tower that will do, and one ``jit`` around all that is computed: operations outside
# of it are compiled one by one, and compiling is what a test costs.
MODEL = PlainConv(width=4, depth=1, num_classes=5)
BATCH = {
    "image": np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32),
    "label": np.asarray([0, 1, 2, 3, 4, -1], np.int32),
    "_mask": np.asarray([True, True, True, True, False, True]),
}


@pytest.fixture(scope="module")
def variables() -> Variables:
    return jax.jit(Classify(MODEL).init)(jax.random.key(1), BATCH)


@functools.partial(jax.jit, static_argnums=0)
def loss(objective: Objective, variables: Variables) -> jax.Array:
    ctx = Context(step=jnp.int32(0), total_steps=10, train=True, key=jax.random.key(0))
    return objective.loss(variables, BATCH, ctx)[0]


def test_without_weight_it_is_cross_entropy(variables: Variables):
    ours, plain = Example(MODEL, weight=0.0), Classify(MODEL)
    expected = float(loss(plain, variables))
    assert float(loss(ours, variables)) == pytest.approx(expected, rel=1e-6)


def test_the_weight_takes_the_mean_entropy_of_rows_that_count(variables: Variables):
    @jax.jit
    def expected(variables: Variables) -> jax.Array:
        logits = Example(MODEL).predict(variables, BATCH, Context.evaluation())["logits"]
        return 0.3 * entropy(logits[:4]).mean()

    none, some = (float(loss(Example(MODEL, weight=w), variables)) for w in (0.0, 0.3))
    assert none - some == pytest.approx(float(expected(variables)), rel=1e-5)


def test_entropy_of_known_distributions():
    p = np.asarray([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1e-30, 1e-30]], np.float32)
    np.testing.assert_allclose(jax.jit(entropy)(np.log(p)), np.log([4, 2]), rtol=1e-6)
