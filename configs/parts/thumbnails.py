"""Real drawings at a few pixels, and towers trained on them from scratch in seconds: for claims.

Emoji of seven groups by three houses, on white, shrunk by whole factors of 48. Two houses and four
fifths of the emoji are learned from; what is asked about are drawings by the third house.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.parts.emoji_features import THINGS, Drawn, drawings
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision.config.specs import spec
from vision.data.batch_ops import BatchRandomFlip
from vision.data.sources.arrays import Arrays
from vision.data.sources.emoji import GROUPS, HOUSES, index, pixels
from vision.evaluators.accuracy.classification import Classification
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.tower import Tower, forward, initialise
from vision.zoo import features

SIDE_PX, BATCH = 16, 64


@functools.cache
def thumbnails(side_px: int = SIDE_PX) -> tuple[np.ndarray, Drawn]:
    """uint8 (N, side, side, 3) of all drawings of ``drawings()``, and these, in the same order."""
    kept = {GROUPS.index(name) for name in THINGS}
    shown = [each for each in features.drawings() if index().emoji[each.emoji].group in kept]
    x = np.stack([pixels(each) for each in shown]).astype(np.float32) / 255
    white = x[..., :3] * x[..., 3:] + 1 - x[..., 3:]
    if white.shape[1] % side_px:
        raise ValueError(f"side_px={side_px} does not divide {white.shape[1]} pixels")
    factor = white.shape[1] // side_px
    mean = white.reshape(len(x), side_px, factor, side_px, factor, 3).mean((2, 4))
    return np.round(mean * 255).astype(np.uint8), drawings()


def groups_of(drawn: Drawn) -> np.ndarray:
    """Class int (N,) of drawings: number of their group in ``THINGS``."""
    return (
        np.array([GROUPS.index(name) for name in THINGS])
        .argsort()
        .argsort()[np.unique(drawn.group, return_inverse=True)[1]]
    )


def rows_of(split: str, drawn: Drawn) -> np.ndarray:
    """bool (N,): ``train`` are seen emoji by two houses, ``test`` all by the third."""
    learned, asked = HOUSES[:2], HOUSES[2:]
    return drawn.by(*learned) & ~drawn.unseen if split == "train" else drawn.by(*asked)


def source(split: str, side_px: int = SIDE_PX) -> Arrays:
    """``image`` uint8 (side, side, 3) and ``label``, the group, of the drawings of a split."""
    image, drawn = thumbnails(side_px)
    rows = rows_of(split, drawn)
    arrays = {"image": image[rows], "label": groups_of(drawn)[rows].astype(np.int32)}
    return Arrays(arrays, f"thumbnails/{split}", THINGS)


def supervised(model, learning_rate, steps, side_px=SIDE_PX, objective=None):
    """Cross-entropy on the group of a drawing, AdamW along a cosine."""
    told = spec(source, split="test", side_px=side_px)
    return spec(
        Experiment,
        data=train_data(
            spec(source, split="train", side_px=side_px), BATCH, spec(BatchRandomFlip), threads=0
        ),
        model=model,
        objective=objective or spec(Classify),
        optimizer=adamw_cosine(learning_rate),
        total=f"{steps} steps",
        evaluators={"new_house": spec(Classification, data=eval_data(told, 256))},
        log_every="50 steps",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Images float32 (N, side, side, 3) in -1..1 and classes int (N,).

    ``x`` and ``label`` are learned from, ``asked`` and ``answer`` are what is asked.
    """

    x: np.ndarray
    label: np.ndarray
    asked: np.ndarray
    answer: np.ndarray

    @property
    def frequent(self) -> float:
        """Accuracy of naming the most frequent class of what is asked."""
        return float(np.bincount(self.answer).max() / len(self.answer))


def task(seed: int, learned: int | None = None, side_px: int = SIDE_PX) -> Task:
    """All drawings of ``source``, of those to learn from ``learned`` drawn anew for every seed."""
    (x, label), (asked, answer) = (
        (each.arrays["image"].astype(np.float32) / 127.5 - 1, each.arrays["label"])
        for each in (source("train", side_px), source("test", side_px))
    )
    rows = np.random.default_rng(seed).permutation(len(x))[:learned]
    return Task(x[rows], label[rows], asked, answer)


@functools.partial(jax.jit, static_argnames=("model",))
def _start(model: Tower, x: jax.Array, seed: jax.Array) -> Any:
    params, state = initialise(model, jax.random.key(seed), x)
    return params, dict(state), optax.scale_by_adam().init(params)


@functools.partial(jax.jit, static_argnames=("model",), donate_argnums=(1,))
def _step(
    model: Tower, carry: Any, x: jax.Array, label: jax.Array, rate: jax.Array, key: jax.Array
) -> Any:
    params, state, memory = carry
    mirrored = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
    x = jnp.where(mirrored, x[:, :, ::-1], x)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        _, out, after = forward(model, params, state, x, train=True, key=jax.random.fold_in(key, 1))
        losses = optax.softmax_cross_entropy_with_integer_labels(out["logits"], label)
        return losses.mean(), after

    slope, after = jax.grad(loss, has_aux=True)(params)
    updates, memory = optax.scale_by_adam().update(slope, memory)
    updates = jax.tree.map(lambda update: -rate * update, updates)
    return optax.apply_updates(params, updates), {**state, **after}, memory


def fitted(
    model: Tower, given: Task, seed: int, steps: int, rate: float, batch: int = BATCH
) -> tuple[Any, Any]:
    """Parameters and model state after steps of Adam along a cosine on random, mirrored batches.

    Towers of equal parameters begin alike and see the same batches for the same seed; a program is
    compiled once for a tower.
    """
    carry = _start(model, given.x[:1], seed)
    order, key = np.random.default_rng([seed, 1]), jax.random.key(seed)
    for number in range(steps):
        rows = order.integers(0, len(given.x), batch)
        now = rate * (1 + math.cos(math.pi * number / steps)) / 2
        key_now = jax.random.fold_in(key, number)
        carry = _step(model, carry, given.x[rows], given.label[rows], now, key_now)
    return carry[:2]


@functools.partial(jax.jit, static_argnames=("model",))
def _classes(model: Tower, params: Any, state: Any, x: jax.Array) -> jax.Array:
    return forward(model, params, state, x, train=False)[1]["logits"].argmax(-1)


def top1(model: Tower, variables: tuple[Any, Any], given: Task) -> float:
    """Share of what is asked that is named right, in whole batches of 100."""
    whole = len(given.asked) // 100 * 100
    parts = [given.asked[i : i + 100] for i in range(0, whole, 100)]
    told = np.concatenate([_classes(model, *variables, part) for part in parts])
    return float(np.mean(told == given.answer[:whole]))
