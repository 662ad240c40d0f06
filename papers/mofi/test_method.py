"""MOFI: entities from texts, the softmax over some of them, and the sum of both tasks."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.mofi.cosine_softmax import cosine_softmax
from papers.mofi.entities import Gazetteer, Link, depicted, frequent, linked
from papers.mofi.method import EntityTasks
from tests.tiny import drawn
from vision.blocks.similarity import unit
from vision.train.objective import Context

ROWS, CLASSES, WIDTH = 6, 12, 5
LABELS = np.array([3, 0, 3, 7, -1, 11], np.int32)
TEXTS = ("a red star on a star", "The Red Star, a blue star!", "nothing")


def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, classes = (rng.normal(size=(rows, WIDTH)).astype(np.float32) for rows in (ROWS, CLASSES))
    return x / np.linalg.norm(x, axis=1, keepdims=True), classes


@jax.jit
def loss_and_slope(sample: np.ndarray) -> Any:
    """The second with respect to the vectors of the classes."""
    features, class_vectors = map(jnp.asarray, vectors())
    label = jnp.asarray(LABELS)

    def loss(classes: jax.Array) -> jax.Array:
        given = features, classes, label, label >= 0, jnp.asarray(sample), jnp.float32(8)
        return cosine_softmax(*given, 0.1)[0]

    return jax.value_and_grad(loss)(class_vectors)


def by_hand(competing: list[int], margin: float = 0.1) -> float:
    features, classes = (np.asarray(x, np.float64) for x in vectors())
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    losses = []
    for x, y in zip(features, LABELS, strict=True):
        if y >= 0:
            cosines = classes @ x
            cosines[y] -= margin
            logits = 8 * cosines[competing]
            losses.append(np.log(np.exp(logits).sum()) - 8 * cosines[y])
    return float(np.mean(losses))


def test_sampled_with_all_classes_is_the_full_softmax():
    full = by_hand(list(range(CLASSES)))
    shuffled = np.random.default_rng(0).permutation(CLASSES)
    for sample in (np.arange(CLASSES), shuffled):
        np.testing.assert_allclose(loss_and_slope(sample)[0], full, rtol=1e-5)


def test_only_the_classes_of_the_batch_and_of_the_sample_compete():
    sample = np.array([7, 5, 5])
    competing = [0, 3, 5, 7, 11]
    loss, gradient = loss_and_slope(sample)
    np.testing.assert_allclose(loss, by_hand(competing), rtol=1e-5)
    moved = np.flatnonzero(np.abs(np.asarray(gradient)).sum(1)).tolist()
    assert moved == competing


def test_entities_are_found_and_filtered():
    linker = Gazetteer(("star", "red star", "blue star"))
    assert [linker.link(text) for text in TEXTS] == [(1, 0), (1, 2), ()]
    pairs = linked(TEXTS, linker)
    assert pairs.tolist() == [[0, 1], [0, 0], [1, 1], [1, 2]]
    images, entities = np.eye(3)[[0, 1, 2]], np.array([[0.6, 0.8, 0], [1, 0, 0], [0, 1, 0]])
    assert depicted(pairs, images, entities, 0.6).tolist() == [[0, 1], [0, 0], [1, 2]]
    assert frequent(pairs, 2).tolist() == [[0, 1], [1, 1]]
    drawn = {
        int(Link(linker)({"caption": TEXTS[0]}, np.random.default_rng(i))["label"])
        for i in range(20)
    }
    assert drawn == {0, 1}
    assert Link(linker)({"caption": TEXTS[2]}, np.random.default_rng(0))["label"] == -1


class Tiny(nn.Module):
    """A dense layer and word vectors."""

    @nn.compact
    def __call__(self, batch: Any, train: bool = False, tap: Any = None):
        out = {}
        if "image" in batch:
            out["image/pooled"] = nn.Dense(WIDTH, name="image")(batch["image"])
            out["image/embedding"] = unit(nn.Dense(4, name="project")(out["image/pooled"]))
        if "text" in batch:
            words = nn.Embed(16, 4, name="words")(batch["text"])
            out["text/embedding"] = unit(words.sum(1))
        return next(iter(out.values())), out


def test_the_tasks_add_up_and_the_batch_may_have_rows_without_an_entity():
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(ROWS, 7)).astype(np.float32),
        "text": rng.integers(1, 16, (ROWS, 3)).astype(np.int32),
        "label": LABELS,
        "_mask": np.arange(ROWS) != 1,
    }
    losses = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, 0.5)):
        objective = EntityTasks(Tiny(), CLASSES, 4, *weights, sampled=3)
        variables = drawn(objective.init, batch)  # the same for all weights

        @jax.jit
        def both(batch: Any, o: EntityTasks = objective, v: Any = variables) -> Any:
            ctx = Context(jnp.int32(0), 10, True, jax.random.key(3))
            return o.loss(v, batch, ctx), o.predict(v, {"image": batch["image"]}, ctx)

        (value, aux), predicted = both(batch)
        losses[weights] = float(value)
        assert ("entity_loss" in aux.metrics) == (weights[0] > 0)
        main = "entity/embedding" if weights[0] else "image/embedding"
        np.testing.assert_array_equal(predicted["embedding"], predicted[main])
    assert losses[2.0, 0.5] == pytest.approx(
        2 * losses[1.0, 0.0] + 0.5 * losses[0.0, 1.0], rel=1e-5
    )
