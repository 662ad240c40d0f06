"""Selective state space scans (Gu and Dao, Mamba, 2023), and orders in which a grid is scanned."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STEPS = ("start", "right", "left", "up", "down")
"""Direction of the step to a cell from the one before; ``start`` also after a jump."""


def log_rates(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial ``log(-A)``, (..., N), for A = -1, -2, .., -N in every channel."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)


def step_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial bias of step sizes whose softplus is log-uniform in [1e-3, 0.1]."""
    low, high = math.log(1e-3), math.log(0.1)
    delta = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return delta + jnp.log(-jnp.expm1(-delta))


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    a: jax.Array,
    b: jax.Array,
    c: jax.Array,
    skip: jax.Array,
    sequential: bool = False,
) -> jax.Array:
    """The recurrence ``h_t = exp(delta_t a) h_{t-1} + delta_t b_t u_t`` with outputs ``c_t h_t``.

    A skip connection ``skip * u_t`` is added to the outputs.

    Args:
      u: (..., L, E) inputs.
      delta: (..., L, E) positive step sizes.
      a: (E, N) negative rates of the N states of every channel.
      b: (..., L, N) input weights of the states.
      c: (..., L, N) output weights of the states.
      skip: (E,).
      sequential: a loop over L, which is faster on a single processor core; otherwise an
        associative scan of depth log L. Equal up to rounding.

    Returns:
      (..., L, E) float32.
    """

    def time_first(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.astype(jnp.float32), -2, 0)

    u, delta, b, c = map(time_first, (u, delta, b, c))
    rates, skip = a.astype(jnp.float32).T, skip.astype(jnp.float32)

    def coefficients(u: jax.Array, delta: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The decay of the states and the term added to them, both (..., N, E)."""
        return jnp.exp(delta[..., None, :] * rates), b[..., None] * (delta * u)[..., None, :]

    def read(h: jax.Array, u: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.einsum("...ne,...n->...e", h, c) + skip * u

    if sequential:

        def step(h: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            u, delta, b, c = inputs
            decay, added = coefficients(u, delta, b)
            h = decay * h + added
            return h, read(h, u, c)

        initial = jnp.zeros((*u.shape[1:-1], *rates.shape))
        return jnp.moveaxis(jax.lax.scan(step, initial, (u, delta, b, c))[1], 0, -2)

    def compose(
        first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, h = jax.lax.associative_scan(compose, coefficients(u, delta, b))
    return jnp.moveaxis(read(h, u, c), 0, -2)


def scan_orders(rows: int, columns: int, snake: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Four scan orders of the cells of a grid: by rows, by columns, and both reversed.

    Args:
      rows, columns: of the grid; cells are numbered in row-major order.
      snake: every other row or column is reversed, so that successive cells are neighbours;
        otherwise all start at the same side.

    Returns:
      Orders (4, L) int32: cell at every step. Steps (4, L) int32: indices into ``STEPS``.
      ``np.argsort(order)`` is the inverse permutation.
    """
    cells = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    lines = [cells.copy(), cells.T.copy()]
    if snake:
        for line in lines:
            line[1::2] = line[1::2, ::-1].copy()
    forward = np.stack([line.ravel() for line in lines])
    orders = np.concatenate([forward, forward[:, ::-1]])
    down, right = (np.diff(coordinate, axis=1) for coordinate in np.divmod(orders, columns))
    steps = np.zeros_like(orders)
    for number, move in enumerate(((0, 1), (0, -1), (-1, 0), (1, 0)), 1):
        steps[:, 1:][(down == move[0]) & (right == move[1])] = number
    return orders, steps
