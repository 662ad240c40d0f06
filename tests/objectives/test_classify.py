"""What a classification loss logs, of labels of every shape."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.objectives.classify import Classify
from vision.train.objective import Context, Variables


class Given(nn.Module):
    """Logits are the image."""

    @nn.compact
    def __call__(self, x, *, train=False, tap=None):
        return x, {"logits": x, "embedding": x}


LOGITS = jnp.asarray([[3.0, -1, 2, -2], [-1, -2, -3, -4], [1, 2, -1, -1], [9, 9, 9, 9]])
MASK = jnp.asarray([True, True, True, False])


def metrics(label, loss_type):
    batch = {"image": LOGITS, "label": jnp.asarray(label), "_mask": MASK}
    ctx = Context(jnp.int32(0), 10, train=True, key=jax.random.key(0))
    objective = Classify(Given(), loss_type=loss_type)
    loss, aux = objective.loss(Variables({"model": {}}, {"model": {}}, {}), batch, ctx)
    assert np.isfinite(loss)
    assert aux.weight is not None
    assert float(aux.weight) == 3
    return {name: float(value) for name, value in aux.metrics.items()}


@pytest.mark.parametrize("loss_type", ["softmax", "sigmoid"])
def test_one_class_per_image_has_top1(loss_type):
    assert metrics([0, 0, 0, 0], loss_type) == {"top1": pytest.approx(2 / 3)}


def test_soft_labels_have_top1_of_the_largest():
    soft = [[0.6, 0.4, 0, 0], [0.4, 0.6, 0, 0], [0, 0.7, 0.3, 0], [1, 0, 0, 0]]
    assert metrics(soft, "softmax") == {"top1": pytest.approx(2 / 3)}
    # Mixed labels under independent classes: the likeliest class has the largest weight.
    assert metrics(soft, "sigmoid")["precision_at_1"] == pytest.approx(2 / 3)


def test_multiple_labels_have_no_top1():
    """Class 1 is not the first of picture 2's classes, and one of them all the same."""
    labels = np.zeros((4, 4), np.float32)
    labels[0, [0, 2]] = labels[2, [0, 1]] = 1  # picture 1 has no class
    logged = metrics(labels, "sigmoid")
    assert logged == {"label_accuracy": 1.0, "precision_at_1": pytest.approx(2 / 3)}
    labels[1, 3] = labels[0, 1] = 1
    labels[0, 0] = 0
    logged = metrics(labels, "sigmoid")
    assert logged["label_accuracy"] == pytest.approx((2 + 3 + 4) / 12)
    assert logged["precision_at_1"] == pytest.approx(1 / 3)


def test_one_class_yes_or_no():
    """Of a single column the likeliest class says nothing: its accuracy does."""
    labels = jnp.asarray([[1.0], [0], [0], [0]])
    batch = {"image": LOGITS[:, :1], "label": labels, "_mask": MASK}
    objective = Classify(Given(), loss_type="sigmoid")
    ctx = Context(jnp.int32(0), 10, train=True, key=jax.random.key(0))
    _, aux = objective.loss(Variables({"model": {}}, {"model": {}}, {}), batch, ctx)
    assert float(aux.metrics["label_accuracy"]) == pytest.approx(2 / 3)
