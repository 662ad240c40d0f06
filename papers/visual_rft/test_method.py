"""Answers as text, their rewards, and the gradient that follows from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.visual_rft.box_answers import ANSWER, END_ANSWER, EOS, PAD, BoxAnswers, iou
from papers.visual_rft.method import VisualRft
from papers.visual_rft.policy_gradient import advantages, policy_losses
from tests.tiny import drawn
from vision.metrics.localisation import box_iou
from vision.models.captioner import Captioner, sample
from vision.models.vit import ViT
from vision.train.objective import Context
from vision.train.tower import forward, initialise

LANGUAGE = BoxAnswers(classes=3, bins=11, confidences=3, max_boxes=2)
ROW = LANGUAGE.length
MODEL = Captioner(
    ViT(width=8, depth=1, heads=2, patch=4, pool="mean"),
    vocab_size=LANGUAGE.vocab_size,
    width=8,
    depth=1,
    heads=2,
    context=ROW,
)
BOXES = np.array([[0.0, 0.0, 0.5, 0.5], [0.2, 0.3, 0.9, 1.0]], np.float32)


pay = jax.jit(LANGUAGE.rewards)


def rewards(ids: Any, boxes: np.ndarray = BOXES, label: int = 2) -> dict[str, float]:
    valid = np.ones((1, len(boxes)), bool)
    paid = pay(np.asarray(ids)[None], np.asarray([label]), boxes[None], valid)
    return {name: float(x[0]) for name, x in jax.device_get(paid).items()}


def test_a_right_answer_has_all_rewards():
    ids = LANGUAGE.write(2, BOXES)
    assert len(ids) == ROW
    assert rewards(ids) == pytest.approx(
        {"format": 1, "class": 1, "iou": 1, "confidence": 1, "overlap": 1}, abs=1e-5
    )
    read = jax.jit(LANGUAGE.read)(np.asarray(ids)[None])
    np.testing.assert_allclose(read["boxes"][0], BOXES, atol=1e-6)


def test_rewards_of_answers_that_are_not_right():
    one = LANGUAGE.write(1, BOXES[:1], confidence=0.5)
    reward = rewards(one)
    assert (reward["class"], reward["format"]) == (0, 1)
    assert reward["iou"] == pytest.approx(0.5)  # one of two
    assert reward["confidence"] == pytest.approx(0.5)
    twice = LANGUAGE.write(1, BOXES[[0, 0]])
    assert rewards(twice)["iou"] == pytest.approx(0.5)  # a repetition is no prediction
    # Of two that fit the same box, the surer one has it.
    near = np.array([[0.0, 0.0, 0.5, 0.4], [0.0, 0.0, 0.5, 0.5]], np.float32)
    both = LANGUAGE.write(1, near)
    both[14] -= 1  # the second is half sure
    reward = rewards(both, BOXES[:1])
    assert reward["iou"] == pytest.approx(0.8 / 2)  # over two predictions
    assert reward["confidence"] == pytest.approx((1 + 0.5) / 2)
    broken = LANGUAGE.write(2, BOXES)
    broken[list(broken).index(END_ANSWER)] = EOS
    assert rewards(broken)["format"] == 0
    closed = LANGUAGE.write(2, BOXES)
    closed[list(closed).index(ANSWER)] = PAD
    assert rewards(closed)["iou"] == 0
    assert rewards(closed)["confidence"] == 0


def test_overlap_is_that_of_the_measures():
    rng = np.random.default_rng(0)
    one, two = (np.sort(rng.random((2, 5, 2, 2)), 2).reshape(2, 5, 4) for _ in range(2))
    ious = jax.jit(iou)(one, two)
    for i in range(2):
        np.testing.assert_allclose(ious[i], box_iou(one[i], two[i]), atol=1e-5)
    inside_out = np.broadcast_to([0.5, 0.5, 0.0, 0.0], one.shape)
    assert float(np.max(jax.jit(iou)(inside_out, np.abs(two)))) == 0


def test_the_op_writes_what_there_is():
    example = {
        "image": np.zeros((20, 10, 3), np.uint8),
        "label": np.int32(1),
        "boxes": np.array([[0, 0, 0, 0], [2, 1, 12, 8]], np.int32),
        "valid": np.array([False, True]),
    }
    written = LANGUAGE(example, np.random.default_rng(0))
    np.testing.assert_allclose(written["boxes"], [[0.1, 0.1, 0.6, 0.8], [0] * 4], atol=1e-6)
    assert written["valid"].tolist() == [True, False]
    text, boxes, valid = (np.asarray(written[name])[None] for name in ("text", "boxes", "valid"))
    reward = pay(text, np.asarray([1]), boxes, valid)
    assert float(reward["iou"][0]) == pytest.approx(1, abs=1e-5)


def test_advantages_have_no_mean_and_equal_rewards_no_advantage():
    normalised = np.asarray(jax.jit(advantages)(np.random.default_rng(0).random((3, 8))))
    np.testing.assert_allclose(normalised.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(normalised.std(1, ddof=1), 1, atol=1e-2)
    np.testing.assert_array_equal(jax.jit(advantages)(np.full((3, 8), 1.5)), 0)


def test_k3_is_at_least_zero_and_the_gradient_is_that_of_reinforce():
    rng = np.random.default_rng(0)
    lp, ref = rng.normal(size=(2, 2, 3, 4))
    a = rng.normal(size=(2, 3))

    @jax.jit
    def slope_and_k3(lp: jax.Array, a: jax.Array, beta: float) -> Any:
        def total(lp: jax.Array) -> tuple[jax.Array, jax.Array]:
            losses, k3 = policy_losses(lp, ref, a, beta)
            return losses.sum(), k3

        return jax.grad(total, has_aux=True)(lp)

    assert np.min(slope_and_k3(lp, a, 1.0)[1]) >= 0
    grad = slope_and_k3(lp, a, 0.0)[0]
    np.testing.assert_allclose(grad, np.broadcast_to(-a[..., None], lp.shape), rtol=1e-6)
    k3 = slope_and_k3(ref, a * 0, 1.0)[0]
    np.testing.assert_allclose(k3, 0, atol=1e-6)


class Varied(VisualRft):
    """Pays for the first token that was said: fresh policies hardly earn anything else."""

    def rewarded(self, ids: jax.Array, batch: Any) -> dict[str, jax.Array]:
        found = super().rewarded(ids, batch)
        return {**found, "class": (ids[:, 1] / 10).reshape(found["class"].shape)}


class Bigrams(nn.Module):
    """A captioner that compiles in no time: one table says what follows a token and an image."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool = False, tap: Any = None) -> Any:
        return self.of(inputs["image"], inputs["text"])

    @nn.compact
    def of(self, prefix: jax.Array, ids: jax.Array) -> Any:
        vocabulary = LANGUAGE.vocab_size
        seen = nn.Dense(vocabulary, name="seen")(prefix.reshape(len(prefix), 1, -1))
        logits = nn.Embed(vocabulary, vocabulary, name="after")(ids) + seen
        return logits[:, -1], {"token_logits": logits}

    def see(self, image: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        return image.mean((1, 2)), {"prefix": image}

    def write(self, prefix: Any, ids: Any, *, train: bool = False, tap: Any = None) -> Any:
        return self.of(prefix, ids)


def test_a_constant_reward_moves_nothing():
    batch = {
        "image": np.random.default_rng(0).normal(size=(2, 2, 2, 1)).astype(np.float32),
        "text": np.zeros((2, ROW), np.int32),
        "label": np.asarray([0, 1]),
        "boxes": np.stack([BOXES, BOXES]),
        "valid": np.ones((2, 2), bool),
        "_mask": np.ones(2, bool),
    }
    model: Any = Bigrams()
    objective = Varied(model, LANGUAGE, rewards=("class",), group=4, beta=0.04)
    variables = drawn(objective.init, batch)
    policy = variables.params["model"]
    variables = variables.merge(extra_state={"reference": policy})

    @jax.jit
    def slopes(params: Any) -> Any:
        def loss(params: Any, objective: Varied) -> jax.Array:
            ctx = Context(jnp.zeros((), jnp.int32), 10, True, jax.random.key(0))
            return objective.loss(variables.merge(params=params), batch, ctx)[0]

        # No reward at all is a constant one.
        none = dataclasses.replace(objective, rewards=())
        return [jax.grad(loss)(params, each) for each in (none, objective)]

    constant, varied = jax.device_get(slopes({"model": policy}))
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(constant)) < 1e-6
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(varied)) > 1e-4


def test_samples_come_with_their_log_probabilities():
    prefix = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8)), jnp.float32)
    given = {"image": np.zeros((2, 8, 8, 3), np.float32), "text": np.zeros((2, ROW), np.int32)}
    weights, state = drawn(lambda key, batch: initialise(MODEL, key, batch), given)

    @jax.jit
    def sampled(key: jax.Array) -> Any:
        ids, log_probabilities = sample(
            MODEL, weights, state, prefix, key, length=ROW, begin=1, end=EOS
        )
        out = forward(MODEL, weights, state, prefix, ids, train=False, method="write")[1]
        return ids, log_probabilities, jax.nn.log_softmax(out["token_logits"][:, :-1])

    ids, log_probabilities, log = jax.device_get(sampled(jax.random.key(0)))
    assert (ids[:, 0] == 1).all()
    again = np.take_along_axis(log, ids[:, 1:, None], 2)[..., 0]
    ended = np.cumsum(ids == EOS, 1)[:, :-1] > 0
    np.testing.assert_allclose(log_probabilities, np.where(ended, 0, again), atol=1e-5)
    assert (ids[:, 1:][ended] == PAD).all()


def test_faults_are_named():
    with pytest.raises(ValueError, match="speed"):
        VisualRft(MODEL, LANGUAGE, rewards=("speed",))
    with pytest.raises(ValueError, match="group"):
        VisualRft(MODEL, LANGUAGE, group=1)
    with pytest.raises(ValueError, match="bins"):
        BoxAnswers(classes=1, bins=1)
