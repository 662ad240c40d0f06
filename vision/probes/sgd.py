"""Softmax regression on frozen features by minibatch SGD, for many learning rates at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vision.probes.linear import FitError, LinearClassifier, check


def fit_sgd(
    x: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    rates: Sequence[float],
    *,
    epochs: int = 10,
    batch_size: int = 256,
    momentum: float = 0.9,
    decay: float = 0.0,
    seed: int = 0,
) -> tuple[LinearClassifier, ...]:
    """A linear layer per learning rate, all trained together on the same minibatches.

    Zero at the start, Nesterov's momentum, the rate falling to zero along half a cosine, penalty
    ``decay / 2 |W|^2``: the linear evaluation of self-supervised learning (He et al., "Momentum
    Contrast", 2020; Oquab et al., "DINOv2", 2024, for the rates side by side). Every record is
    used once per epoch, in a new random order. Runs in one compiled loop on the first device of
    the process; deterministic in the arguments.

    Args:
      x: (N, D) float.
      labels: (N,) int in 0..num_classes - 1.
      num_classes: K, at least 2.
      rates: initial learning rates, not scaled by the batch size.
      epochs: passes over the records.
      batch_size: records per update, at most N.
      momentum: in [0, 1).
      decay: 0 or more.
      seed: of the order of records.

    Returns:
      In the order of ``rates``; ``loss`` is that of all records, ``steps`` the updates, and
      ``converged`` whether the weights are finite.

    Raises:
      FitError: arguments out of range, or as ``fit_logistic``.
    """
    check(x, labels, num_classes)
    if not rates or not all(rate > 0 and np.isfinite(rate) for rate in rates):
        raise FitError(f"rates={tuple(rates)}: at least one, all positive and finite")
    if epochs < 1 or batch_size < 1:
        raise FitError(f"epochs={epochs}, batch_size={batch_size}: both are at least 1")
    if not (0 <= momentum < 1 and decay >= 0):
        raise FitError(f"momentum={momentum} lies in [0, 1), decay={decay} is 0 or more")
    size = min(batch_size, len(x))
    steps = -(-epochs * len(x) // size)
    rng = np.random.default_rng(seed)
    passes = -(-steps * size // len(x))
    order = np.concatenate([rng.permutation(len(x)) for _ in range(passes)])[: steps * size]
    device = jax.local_devices()[0]
    arrays = (
        np.asarray(x, np.float32),
        labels.astype(np.int32),
        order.astype(np.int32).reshape(steps, size),
        np.asarray(rates, np.float32),
        np.asarray([momentum, decay], np.float32),
    )
    # Every process trains by itself, even if the run's mesh spans all processes.
    with jax.set_mesh(jax.sharding.Mesh(np.asarray([device]), ("data",))):
        fitted = _trainer(num_classes)(*jax.device_put(arrays, device))
        weights, biases, losses = jax.device_get(fitted)
    return tuple(
        LinearClassifier(
            weight.astype(np.float64),
            bias.astype(np.float64),
            float(loss),
            steps,
            bool(np.isfinite(weight).all() and np.isfinite(bias).all()),
        )
        for weight, bias, loss in zip(weights, biases, losses, strict=True)
    )


@functools.lru_cache(maxsize=16)
def _trainer(num_classes: int):
    def loss(
        layer: tuple[jax.Array, jax.Array], x: jax.Array, labels: jax.Array, decay: jax.Array
    ) -> jax.Array:
        log = jax.nn.log_softmax(x @ layer[0] + layer[1])
        true_log_probabilities = jnp.take_along_axis(log, labels[:, None], 1)
        return -true_log_probabilities.mean() + decay / 2 * jnp.sum(jnp.square(layer[0]))

    def train(
        x: jax.Array, labels: jax.Array, order: jax.Array, rates: jax.Array, numbers: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        momentum, decay = numbers
        schedule = (1 + jnp.cos(jnp.pi * jnp.arange(len(order)) / len(order))) / 2

        def train_one(rate: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            zero = (jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes))

            def step(carry, minibatch):
                layer, velocity = carry
                rows, rate_factor = minibatch
                gradient = jax.grad(loss)(layer, x[rows], labels[rows], decay)
                velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
                nesterov = jax.tree.map(lambda v, g: g + momentum * v, velocity, gradient)
                layer = jax.tree.map(lambda w, d: w - rate * rate_factor * d, layer, nesterov)
                return (layer, velocity), None

            (layer, _), _ = jax.lax.scan(step, (zero, zero), (order, schedule))
            return *layer, loss(layer, x, labels, decay)

        return jax.vmap(train_one)(rates)

    return jax.jit(train)
