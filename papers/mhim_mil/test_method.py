"""MHIM-MIL: as many instances hidden as it says, and without any a plain attention network."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from papers.mhim_mil.attention_mil import AttentionMIL
from papers.mhim_mil.bags import Bags
from papers.mhim_mil.method import MhimMil
from tests.tiny import drawn
from vision.data.sources.digits import Digits
from vision.objectives.classify import Classify
from vision.train.optim import Optimizer, ParameterRule, sgd
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import forward

MODEL = AttentionMIL(width=8, hidden=4, num_classes=2, dropout=0.0)
N = 20
PLAIN: dict[str, Any] = {"high": 0.0, "random": 0.0, "low": 0.0, "alpha": 0.0}


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(4, N, 3, 2)).astype(np.float32),
        "label": np.array([0, 1, 1, 0], np.int32),
        "_mask": np.array([True, True, True, False]),
    }


def step(objective: Any) -> Step:
    optimizer = Optimizer(sgd(), 1e-2, rules=(ParameterRule(".*"),))
    return Step(objective, optimizer, TrainLength(8, 4, total_steps=4))


def begun(made: Step) -> Any:
    return jax.jit(made.init_state)(drawn(made.objective.init, batch()))


def test_attention_sums_to_one_over_what_is_there_and_follows_it():
    image = batch()["image"]
    params = drawn(Classify(MODEL).init, batch()).params["model"]
    mask = np.arange(N) % 3 != 0
    masks = np.broadcast_to(mask, (4, N))

    @jax.jit
    def of(image: jax.Array, mask: jax.Array | None) -> Any:
        return forward(MODEL, params, {}, image, train=False, mask=mask)[1]

    def output(image: np.ndarray, mask: np.ndarray | None) -> Any:
        return jax.device_get(of(image, mask))

    some, every = output(image, masks), output(image, None)
    alone = output(image[:, mask], None)
    assert not np.any(some["attention"][:, ~mask])
    np.testing.assert_allclose(every["attention"].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(some["attention"][:, mask], alone["attention"], atol=1e-6)
    np.testing.assert_allclose(some["logits"], alone["logits"], atol=1e-6)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(output(image[:, order], None)["logits"], every["logits"], atol=1e-6)


def test_with_nothing_hidden_it_is_the_plain_network():
    """Two updates of the same state end in the same numbers, whatever the teacher says.

    Two programs: the compiler may add in another order. AdamW would make a whole step of the
    rounding where the gradient is zero, as that of a bias in front of a softmax.
    """
    made, classifier = step(MhimMil(MODEL, **PLAIN)), step(Classify(MODEL))
    state = begun(made)
    other = dataclasses.replace(state, extra_state={})
    ours, theirs = jax.jit(made.update), jax.jit(classifier.update)
    for _ in range(2):
        state, metrics = ours(state, batch())
        other, expected = theirs(other, batch())
        np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
        assert metrics["shown"] == 1
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, state.params, other.params)


def test_as_many_are_hidden_as_it_says_by_the_teachers_attention():
    attention = np.random.default_rng(2).dirichlet(np.ones(N), 4).astype(np.float32)
    mask = np.ones((4, N), bool)
    mask[3, 12:] = False
    rank = np.argsort(np.argsort(np.where(mask, -attention, np.inf), 1), 1)
    key = jax.random.key(0)

    @jax.jit
    def hidden(attention: jax.Array, mask: jax.Array) -> list[jax.Array]:
        ratios: list[dict[str, Any]] = [
            {},
            {"high": 0.1, "high_share": 1.0},
            {"high": 0.1, "high_share": 0.5},
            {"low": 0.25},
            {"random": 0.5},
            {"high": 0.1, "high_share": 1.0, "random": 0.5},
            {"random": 1.0},
        ]
        every = [MhimMil(MODEL, **{**PLAIN, **each}) for each in ratios]
        return [made.hidden(attention, mask, made.high, key) for made in every]

    none, top, half, low, chance, both, most = map(np.asarray, hidden(attention, mask))
    assert not none.any()
    np.testing.assert_array_equal(top, (rank < 2) & mask)
    np.testing.assert_array_equal(half.sum(1), [2, 2, 2, 2])  # of ceil(12 x 0.2) = 3 the half
    assert np.all(rank[half] < 4)
    np.testing.assert_array_equal(low, (rank >= np.array([15, 15, 15, 9])[:, None]) & mask)
    np.testing.assert_array_equal(chance.sum(1), [10, 10, 10, 6])
    assert 0 < (chance & top).sum() < top.sum()
    np.testing.assert_array_equal(both, top | chance)
    assert not most[3, 12:].any()


def test_the_student_takes_one_layer_and_the_teacher_follows_slowly():
    made = step(MhimMil(MODEL, momentum=0.75, **{**PLAIN, "random": 0.9}))
    fresh = begun(made)
    given = fresh.params["model"]
    start = jax.jit(made.init_from_batch)(fresh, batch())
    jax.tree.map(np.testing.assert_array_equal, start.extra_state["teacher"], given)
    student = start.params["model"]
    np.testing.assert_array_equal(student["fc"]["kernel"], given["fc"]["kernel"])
    assert not np.allclose(student["head"]["kernel"], given["head"]["kernel"])
    after, metrics = jax.device_get(jax.jit(made.update)(start, batch()))
    assert float(metrics["shown"]) == pytest.approx(0.1, abs=0.01)
    jax.tree.map(
        lambda old, new, now: np.testing.assert_allclose(now, 0.75 * old + 0.25 * new, atol=1e-6),
        jax.device_get(given),
        after.params["model"],
        after.extra_state["teacher"],
    )
    same = step(MhimMil(MODEL, fresh=False))
    again = jax.jit(same.init_from_batch)(fresh, batch())
    jax.tree.map(np.testing.assert_array_equal, again.params["model"], given)


def test_bags_hold_what_their_label_says():
    digits = Digits()
    bags = Bags(digits, num_bags=12, size=9, positive=3, present=(2, 4))
    labels = digits.column("label")
    threes = {digits[i]["image"].tobytes() for i in np.flatnonzero(labels == 3).tolist()}
    for i in range(12):
        bag = bags[i]
        assert bag["image"].shape == (9, 8, 8, 1)
        assert bag["label"] == i % 2 == bags.column("label")[i]
        assert bag["positive"].sum() in ((2, 3, 4) if i % 2 else (0,))
        pixels = np.rint(bag["image"] * 255).astype(np.uint8)
        np.testing.assert_array_equal([x.tobytes() in threes for x in pixels], bag["positive"])
        np.testing.assert_array_equal(bag["image"], bags[i]["image"])
    noisy = dataclasses.replace(bags, noise=0.5)
    gap = np.stack([noisy[i]["image"] - bags[i]["image"] for i in range(12)])
    assert abs(gap.std() - 0.5) < 0.02
    assert not np.array_equal(bags[1]["image"], dataclasses.replace(bags, seed=1)[1]["image"])
    with pytest.raises(ValueError, match="present="):
        Bags(digits, 4, size=3, present=(1, 4))
    with pytest.raises(IndexError, match="bag 12 of 12"):
        bags[12]
