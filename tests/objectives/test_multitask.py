"""Several tasks in one head: the loss task by task, and exact zeros where labels are missing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vision.models.vit import ViT
from vision.objectives.multitask import MultiTask
from vision.train.objective import Context

TASKS = {"colour": 3, "count": 2, "shape": 4}
MODEL = ViT(width=8, depth=1, heads=2, patch=4, pool="mean", num_classes=9)
OBJECTIVE = MultiTask(MODEL, TASKS)
IMAGE = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
BATCH = {
    "image": IMAGE,
    "_mask": np.array([1, 1, 1, 1, 1, 0], bool),
    "colour": np.array([0, -1, 2, 1, -1, 2]),
    "count": np.array([1, 1, -1, 0, 0, 1]),
    "shape": np.array([3, -1, -1, -1, -1, 0]),
}
VARIABLES = OBJECTIVE.init(jax.random.key(0), BATCH)
CTX = Context(jnp.zeros((), jnp.int32), 1, train=True, key=jax.random.key(1))


@jax.jit
def loss(logits: jax.Array, batch: dict[str, Any]) -> jax.Array:
    return OBJECTIVE.loss_from_embeddings(VARIABLES, logits, batch, CTX)[0]


def logits() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(6, 9)), jnp.float32)


def test_the_loss_is_the_sum_of_means_over_labelled_examples():
    z, expected = np.asarray(logits()), 0.0
    for task, part in (("colour", z[:, :3]), ("count", z[:, 3:5]), ("shape", z[:, 5:])):
        keep = (BATCH[task] >= 0) & BATCH["_mask"]
        each = optax.softmax_cross_entropy_with_integer_labels(part[keep], BATCH[task][keep])
        expected += float(each.mean())
    assert float(loss(logits(), BATCH)) == pytest.approx(expected, rel=1e-6)
    parts = OBJECTIVE.split(jnp.asarray(z))
    np.testing.assert_array_equal(np.concatenate(list(parts.values()), 1), z)


def test_a_head_without_labels_gets_a_gradient_of_exactly_zero():
    batch = {**BATCH, "count": np.full(6, -1)}
    gradient = jax.jit(
        jax.grad(lambda p: OBJECTIVE.loss(VARIABLES.merge(params=p), batch, CTX)[0])
    )(VARIABLES.params)
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, gradient))
    heads = [leaf for leaf in leaves if leaf.shape[-1:] == (9,)]
    assert len(heads) == 2  # kernel and bias
    # The kernel begins at zero, so its gradient is what tells; nothing of it is rounding.
    for leaf in heads:
        np.testing.assert_array_equal(leaf[..., 3:5], 0)
        assert (leaf[..., :3] != 0).any()
        assert (leaf[..., 5:] != 0).any()
    at = jax.grad(loss)(logits(), BATCH)
    for task, columns in (("colour", slice(0, 3)), ("shape", slice(5, 9))):
        missing = (BATCH[task] < 0) | ~BATCH["_mask"]
        np.testing.assert_array_equal(np.asarray(at)[missing, columns], 0)


def test_missing_labels_mask_nonfinite_losses_and_no_labels_give_zero_loss():
    bad = logits().at[1, 0].set(jnp.nan)
    assert np.isfinite(float(loss(bad, BATCH)))
    none = {**BATCH, **{task: np.full(6, -1) for task in TASKS}}
    assert float(loss(logits(), none)) == 0
    assert not np.asarray(jax.grad(loss)(logits(), none)).any()


def test_predict_and_errors():
    actual = jax.eval_shape(
        lambda of: OBJECTIVE.predict(of, {"image": jnp.asarray(IMAGE)}, CTX), VARIABLES
    )
    assert {name: x.shape for name, x in actual.items() if name != "embedding"} == {
        "logits/colour": (6, 3),
        "logits/count": (6, 2),
        "logits/shape": (6, 4),
    }
    with pytest.raises(ValueError, match=r"config\.model\.num_classes=9"):
        OBJECTIVE.split(jnp.zeros((2, 8)))
    without = {k: v for k, v in BATCH.items() if k != "shape"}
    with pytest.raises(ValueError, match="no 'shape'"):
        OBJECTIVE.loss_from_embeddings(VARIABLES, logits(), without, CTX)
    with pytest.raises(ValueError, match="two classes or more"):
        MultiTask(MODEL, {"one": 1})
