"""Towers trained from scratch in seconds, a program for each: for claims."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.data.sources.digits import Digits
from vision.train.tower import Tower, forward, initialise

BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Images float32 (N, side, side, 3) in -1..1 and classes int (N,).

    ``x`` and ``label`` are learned from, ``asked`` and ``answer`` are what is asked.
    """

    x: np.ndarray
    label: np.ndarray
    asked: np.ndarray
    answer: np.ndarray

    def permuted(self, seed: int = 0) -> Task:
        """The same images, each with the class of another."""
        label = np.random.default_rng(seed).permutation(self.label)
        return dataclasses.replace(self, label=label)


def digits(asked: int = 300, learned: int | None = None) -> Task:
    """The digits that ship, 8 px.

    Args:
      asked: of those to test on.
      learned: of those to train on; None for all.
    """
    parts = []
    for split, count in (("train", learned), ("test", asked)):
        source = Digits(split)  # pyright: ignore[reportArgumentType]
        records = source.__getitems__(range(len(source)))
        image = records["image"].astype(np.float32) / 127.5 - 1
        parts += [image[:count], records["label"][:count]]
    return Task(*parts)


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
