"""Disambiguation: without knowledge it is plain training, planted pairs are found, averages."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.mrcnn_scenes.method import Disambiguated, imitation, merged, shared
from papers.mrcnn_scenes.towers import Resolutions, WithKnowledge
from tests.models.tower_cases import quick_jit
from tests.tiny import filled
from vision.objectives.classify import Classify
from vision.train.objective import Context, Variables
from vision.train.tower import apply_tap


class Pixels(nn.Module):
    """Logits of all pixels; a statistic that training moves."""

    num_classes: int | None = 3

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False, tap: Any = None) -> Any:
        flat = x.reshape(len(x), -1)
        calls = self.variable("count", "calls", lambda: jnp.zeros(()))
        if train:
            calls.value = calls.value + 1
        embedding = nn.tanh(nn.Dense(4, name="hidden")(flat))
        logits = apply_tap(tap, "logits", nn.Dense(self.num_classes or 0, name="head")(embedding))
        return embedding, {"embedding": embedding, "logits": logits}


RNG = np.random.default_rng(0)
BATCH: Any = {
    "image": RNG.normal(size=(5, 4, 4, 1)).astype(np.float32),
    "label": np.array([0, 2, 1, -1, 2], np.int32),
    "_mask": np.array([True, True, True, True, False]),
}
TOWER = WithKnowledge(Pixels(3), Pixels(6), 3)


def test_two_losses_and_a_network_that_stands_still():
    objective, alone = Disambiguated(TOWER, knowledge=0.5), Disambiguated(TOWER, knowledge=0.0)
    drawn = jax.eval_shape(lambda: objective.init(jax.random.key(0), BATCH))
    variables = filled(drawn)
    student = Variables(
        {"model": variables.params["model"]["student"]},
        {"model": {"count": variables.model_state["model"]["count"]["student"]}},
        {},
    )
    ctx = Context(jnp.zeros([], int), 1, train=True, key=jax.random.key(0))

    @quick_jit
    def every(variables: Variables, student: Variables) -> Any:
        def of(objective: Any, given: Variables) -> Any:
            def loss(params: Any) -> Any:
                return objective.loss(given.merge(params=params), BATCH, ctx)

            return jax.value_and_grad(loss, has_aux=True)(given.params)

        out = TOWER.apply(
            {"params": variables.params["model"], **variables.model_state["model"]},
            BATCH["image"],
        )[1]
        return (
            of(objective, variables),
            of(alone, variables),
            of(Classify(Pixels(3)), student),
            out,
        )

    ((both, aux), slope), ((zero, _), zero_slope), ((plain, _), plain_slope), out = every(
        variables, student
    )
    assert zero == plain
    for ours, theirs in zip(
        jax.tree.leaves(zero_slope["model"]["student"]),
        jax.tree.leaves(plain_slope["model"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    losses = imitation(out["knowledge_logits"], out["knowledge"])
    np.testing.assert_allclose(both, plain + 0.5 * losses[:3].mean(), rtol=1e-5)
    np.testing.assert_allclose(out["knowledge"].sum(-1), 1, rtol=1e-5)
    moved = {
        name: max(np.abs(x).max() for x in jax.tree.leaves(part))
        for name, part in slope["model"].items()
    }
    assert moved["extra"] == 0
    assert moved["student"] > 0
    assert moved["knowledge_head"] > 0
    after, before = aux.model_state["model"]["count"], variables.model_state["model"]["count"]
    calls = [float(after[name]["calls"] - before[name]["calls"]) for name in ("student", "extra")]
    np.testing.assert_allclose(calls, [1, 0], atol=1e-6)


def test_planted_pairs_become_super_categories_and_share_their_probability():
    rng = np.random.default_rng(1)
    pairs, size = {1: 4, 4: 1, 2: 5, 5: 2}, 400
    truth = np.repeat(np.arange(7), size)
    told = truth.copy()
    swapped = rng.random(len(truth)) < 0.3
    told[swapped] = np.array([pairs.get(int(k), int(k)) for k in truth[swapped]])
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, (truth, told), 1)
    made = merged(confusion, 0.2)
    assert made.tolist() == [0, 1, 2, 3, 1, 2, 4]
    np.testing.assert_array_equal(merged(confusion, 0.5), np.arange(7))
    assert merged(confusion, -1).max() == 0
    # A class that is confused with both of a pair joins them.
    chain = np.array([[6, 4, 0], [4, 5, 1], [0, 4, 6]])
    assert merged(chain, 0.2).tolist() == [0, 0, 0]
    split = shared(np.array([[0.4, 0.2, 0.4, 0.0, 0.0]]), made)
    np.testing.assert_allclose(split, [[0.4, 0.1, 0.2, 0, 0.1, 0.2, 0]])
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        merged(np.zeros((2, 3)), 0.1)


def test_resolutions_are_averaged_and_one_is_the_tower_itself():
    x = jnp.asarray(BATCH["image"])
    one = Resolutions((Pixels(3),), (4,))
    variables = filled(jax.eval_shape(lambda: one.init(jax.random.key(0), x)))
    plain = Pixels(3).apply({k: part["towers_0"] for k, part in variables.items()}, x)[1]
    np.testing.assert_array_equal(one.apply(variables, x)[1]["logits"], plain["logits"])
    two = Resolutions((Pixels(3), Pixels(3)), (4, 2))
    variables = filled(jax.eval_shape(lambda: two.init(jax.random.key(0), x)))
    answer: Any = two.apply(variables, x)
    joint, out = answer
    small = jax.image.resize(x, (5, 2, 2, 1), "bilinear")

    def alone(i: int, seen: Any) -> Any:
        given = {kind: part[f"towers_{i}"] for kind, part in variables.items()}
        answer: Any = Pixels(3).apply(given, seen)
        return jax.nn.softmax(answer[1]["logits"])

    mean = (alone(0, x) + alone(1, small)) / 2
    np.testing.assert_allclose(jnp.exp(out["logits"]), mean, rtol=1e-5)
    assert joint.shape == (5, 8)
    with pytest.raises(ValueError, match="1 towers, but 2 sizes"):
        Resolutions((Pixels(3),), (4, 2))


def test_an_extra_network_without_a_vocabulary_is_named():
    with pytest.raises(ValueError, match="extra has no head"):
        jax.eval_shape(
            lambda: WithKnowledge(Pixels(3), Pixels(None), 3).init(
                jax.random.key(0), BATCH["image"]
            )
        )
