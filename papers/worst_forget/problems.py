"""The lower problem (relearning with weights) and the constraint of the upper one (projection)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vision.run.restore import Run

Tree = Any


# Parameters, images (B, H, W, C) and labels (B,) to losses (B,).
Losses = Callable[[Tree, jax.Array, jax.Array], jax.Array]


_BISECTIONS = 60


def project(w: jax.Array, total: float) -> jax.Array:
    """Projection of ``w`` (N,) onto the points in [0, 1]^N with sum ``total``, 0..N."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        centre = (low + high) / 2
        too_large = jnp.clip(w - centre, 0, 1).sum() > total
        return jnp.where(too_large, centre, low), jnp.where(too_large, high, centre)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (w.min() - 1, w.max()))
    return jnp.clip(w - (low + high) / 2, 0, 1)


def relearn(
    losses: Losses,
    params: Tree,
    kept: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    learning_rate: float,
) -> Tree:
    """The lower problem: SignSGD on the examples with weights ``kept`` (N,), 1 - w.

    Args:
      order: int (steps, B), the examples of every step.
    """

    def step(params: Tree, places: jax.Array) -> tuple[Tree, None]:
        def loss(params: Tree) -> jax.Array:
            return jnp.mean(kept[places] * losses(params, images[places], labels[places]))

        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - learning_rate * jnp.sign(g), params, grads), None

    return jax.lax.scan(step, params, order)[0]


def losses_of(run: Run) -> Losses:
    """Cross-entropies of a classifier's run, as a function of its parameters."""

    def losses(params: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = dataclasses.replace(run.variables, params=params)
        log_probabilities = run.predict(variables, {"image": images, "label": labels})[
            "log_probabilities"
        ]
        return -jnp.take_along_axis(log_probabilities, labels[:, None], 1)[:, 0]

    return losses
