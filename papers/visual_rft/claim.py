"""Sixteen canvases for a weak finder of boxes: rewards for its samples, or supervision.

A digit stands anywhere on a canvas of 20 pixels. A network of one hidden layer answers with four
tokens, the sides of the digit's box, and is taught on 512 canvases until its likeliest answer to
new ones fits by more than half in most cases. From there it takes 100 steps on 16 other
canvases: by Visual-RFT, 8 answers for each, or by more supervised fine-tuning. Measured is the
reward on 512 canvases that none saw: the overlap of a box that fits by more than half, else 0. The
control is Visual-RFT whose rewards are permuted among the answers to a canvas.

Undecided: no difference, 0.407 and 0.411, from 0.666 at the start, which both lose. The four sides
are drawn independently of each other, unlike the tokens of a captioner.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, digits, features, trained
from papers.visual_rft.policy_gradient import advantages, policy_losses
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.11, rule="half of the 21.9 points of AP in two-shot detection")
SIDE, DIGIT, UNITS, GROUP, BETA = 20, 8, 128, 8, 0.04
TAUGHT, FEW, ASKED = 512, 16, 512
TEACHING, TUNING, RATE = 40, 100, 1e-3


def canvases(split: str, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels float32 (N, 400) and boxes int (N, 4): y0, x0 and the last row and column."""
    rng = np.random.default_rng(seed)
    pixels = digits(split)[0].reshape(-1, DIGIT, DIGIT)
    images, boxes = np.zeros((count, SIDE, SIDE), np.float32), np.zeros((count, 4), np.int64)
    for i in range(count):
        digit = pixels[rng.integers(len(pixels))]
        y, x = rng.integers(0, SIDE - DIGIT + 1, 2)
        images[i, y : y + DIGIT, x : x + DIGIT] = digit
        rows, columns = np.nonzero(images[i] > 0)
        boxes[i] = rows.min(), columns.min(), rows.max(), columns.max()
    return images.reshape(count, -1), boxes


def init_weights(seed: int) -> Weights:
    kernel = np.random.default_rng(seed).normal(0, (2 / SIDE**2) ** 0.5, (SIDE**2, UNITS))
    hidden = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(UNITS)}
    return {
        "hidden": hidden,
        "head": {"kernel": jnp.zeros((UNITS, 4 * SIDE)), "bias": jnp.zeros(4 * SIDE)},
    }


def log_probabilities(w: Weights, x: jax.Array) -> jax.Array:
    """(N, 4, 20) of the tokens of canvases (N, 400)."""
    logits = features(w, x) @ w["head"]["kernel"] + w["head"]["bias"]
    return jax.nn.log_softmax(logits.reshape(-1, 4, SIDE))


def reward(answers: jax.Array, boxes: jax.Array) -> jax.Array:
    """Overlap (...,) of answers (..., 4) with boxes, 0 where it is at most a half."""
    low = jnp.maximum(answers[..., :2], boxes[..., :2])
    high = jnp.minimum(answers[..., 2:], boxes[..., 2:])
    common = jnp.maximum(high - low + 1, 0).prod(-1)
    sizes = [
        jnp.maximum(each[..., 2:] - each[..., :2] + 1, 0).prod(-1) for each in (answers, boxes)
    ]
    overlap = common / jnp.maximum(sizes[0] + sizes[1] - common, 1)
    return jnp.where(overlap > 0.5, overlap, 0.0)


def told(w: Weights, data: tuple[Any, ...], key: jax.Array) -> jax.Array:
    """Supervised: the cross-entropy of the tokens."""
    x, boxes = data
    return -jnp.take_along_axis(log_probabilities(w, x), boxes[..., None], 2).mean()


def rewarded(
    w: Weights, data: tuple[Any, ...], key: jax.Array, permuted: bool = False
) -> jax.Array:
    """Visual-RFT's loss of 8 answers for every canvas."""
    x, boxes, reference = data
    k_answer, k_permute = jax.random.split(key)
    log = log_probabilities(w, x)
    answers = jax.random.categorical(k_answer, log[:, None], shape=(len(x), GROUP, 4))
    gained = reward(answers, boxes[:, None])
    if permuted:
        gained = jax.random.permutation(k_permute, gained, axis=1, independent=True)
    chosen, before = (
        jnp.take_along_axis(each[:, None], answers[..., None], 3)[..., 0]
        for each in (log, log_probabilities(reference, x))
    )
    return policy_losses(chosen, before, advantages(gained), BETA)[0].mean()


def permuted(w: Weights, data: tuple[Any, ...], key: jax.Array) -> jax.Array:
    return rewarded(w, data, key, permuted=True)


def measure_seed(seed: int) -> dict[str, float]:
    x, boxes = map(jnp.asarray, canvases("train", 3 * seed, TAUGHT))
    few = tuple(map(jnp.asarray, canvases("train", 3 * seed + 1, FEW)))
    asked, truth = map(jnp.asarray, canvases("test", 3 * seed + 2, ASKED))
    start = trained(init_weights(seed), told, (x, boxes), TEACHING, RATE)
    networks = {
        "start": start,
        "more": trained(start, told, few, TUNING, RATE),
        "rft": trained(start, rewarded, (*few, start), TUNING, RATE),
        "permuted": trained(start, permuted, (*few, start), TUNING, RATE),
    }
    return {
        name: float(reward(log_probabilities(w, asked).argmax(-1), truth).mean())
        for name, w in networks.items()
    }


def test_rewards_teach_more_than_the_truth_of_the_same_canvases(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, more = "reward of overlap, new canvases", side("more fine-tuning", "more")
    start = side("start", "start")
    record(
        claim="After as many steps on 16 canvases reinforcement by overlap has a higher reward on "
        "new ones than supervised fine-tuning.",
        expected="undecided",
        compared=Measured(what, side("Visual-RFT", "rft"), more),
        margin=MARGIN,
        scale=Scale(),
        premises=[Premise("reward at the start", start.values, at_least=0.2)],
        control=Measured(what, side("rewards permuted", "permuted"), more),
        measured=[Measured(what, side("Visual-RFT", "rft"), start)],
    )
