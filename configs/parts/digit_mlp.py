"""A network of one hidden layer on the digits that ship, trained in a second: for claims."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.data.sources.digits import Digits
from vision.objectives.classify import cross_entropy

Weights = dict[str, Any]


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels float32 (N, 64) in 0..1, and labels int (N,)."""
    records = Digits(split).__getitems__(range(len(Digits(split))))  # pyright: ignore[reportArgumentType]
    return records["image"].reshape(-1, 64).astype(np.float32) / 255, records["label"]


def init_weights(seed: int, units: int, classes: int = 10) -> Weights:
    """Weights before training; the head is 0."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, (2 / 64) ** 0.5, (64, units)).astype(np.float32)
    head = {"kernel": jnp.zeros((units, classes)), "bias": jnp.zeros(classes)}
    return {"hidden": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(units)}, "head": head}


def features(w: Weights, x: jax.Array) -> jax.Array:
    """(N, units) of pixels (N, 64)."""
    return jax.nn.relu(x @ w["hidden"]["kernel"] + w["hidden"]["bias"])


def logits(w: Weights, x: jax.Array) -> jax.Array:
    """(N, K) of pixels (N, 64)."""
    return features(w, x) @ w["head"]["kernel"] + w["head"]["bias"]


def nll(
    w: Weights, x: jax.Array, targets: jax.Array, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Mean cross-entropy in nats with targets (N, K), of logits over a temperature."""
    return cross_entropy(logits(w, x) / temperature, targets, "softmax", 0.0).mean()


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def trained(
    w: Weights, loss: Callable[..., jax.Array], data: Any, steps: int, rate: float | jax.Array
) -> Weights:
    """Weights after steps of Adam on all data at once.

    Args:
      w: weights at the start.
      loss: of weights, ``data`` and a key that is another one in every step.
      data: arrays.
      steps: number of steps.
      rate: of Adam.
    """
    optimizer = optax.adam(rate)

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        w, state = carry
        slope = jax.grad(loss)(w, data, jax.random.fold_in(jax.random.key(0), number))
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(w, updates), state), None

    return jax.lax.scan(step, (w, optimizer.init(w)), jnp.arange(steps))[0][0]


def right(w: Weights, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether the likeliest class is the label, bool (N,)."""
    return np.asarray(logits(w, jnp.asarray(x)).argmax(-1)) == label
