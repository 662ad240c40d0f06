"""Selective state space scans (Gu and Dao, Mamba, 2023), and orders in which a grid is scanned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

STEPS = ("start", "right", "left", "up", "down")
"""How a scan came to a cell from the one before; ``start`` also where it jumped."""


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    a: jax.Array,
    b: jax.Array,
    c: jax.Array,
    skip: jax.Array,
    sequential: bool = False,
) -> jax.Array:
    """The recurrence ``h_t = exp(delta_t a) h_{t-1} + delta_t b_t u_t``, read as ``c_t h_t``.

    What is added, ``skip * u_t``, passes the state by.

    Args:
      u: (..., L, E) inputs.
      delta: (..., L, E) positive step sizes.
      a: (E, N) negative rates of the N states of every channel.
      b: (..., L, N) what an input writes into the states.
      c: (..., L, N) what is read out of them.
      skip: (E,).
      sequential: one step after the other, which a single processor core does faster; otherwise
        all at once, by an associative scan of depth log L. Equal to rounding.

    Returns:
      (..., L, E) float32.
    """

    def time_first(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.astype(jnp.float32), -2, 0)

    u, delta, b, c = map(time_first, (u, delta, b, c))
    rates, skip = a.astype(jnp.float32).T, skip.astype(jnp.float32)

    def enter(u: jax.Array, delta: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What is left of the states, and what is written into them: (..., N, E)."""
        return jnp.exp(delta[..., None, :] * rates), b[..., None] * (delta * u)[..., None, :]

    def read(h: jax.Array, u: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.einsum("...ne,...n->...e", h, c) + skip * u

    if sequential:

        def step(h: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            u, delta, b, c = now
            left, written = enter(u, delta, b)
            h = left * h + written
            return h, read(h, u, c)

        nothing = jnp.zeros((*u.shape[1:-1], *rates.shape))
        return jnp.moveaxis(jax.lax.scan(step, nothing, (u, delta, b, c))[1], 0, -2)

    def join(
        first: tuple[jax.Array, jax.Array], then: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return first[0] * then[0], then[0] * first[1] + then[1]

    _, h = jax.lax.associative_scan(join, enter(u, delta, b))
    return jnp.moveaxis(read(h, u, c), 0, -2)


def scan_orders(rows: int, columns: int, snake: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Four orders of the cells of a grid: by rows, by columns, and both backwards.

    Args:
      rows, columns: of the grid; its cells are numbered row by row.
      snake: every other row or column is run through in the other direction, so that a cell
        always follows one of its neighbours; otherwise all begin at the same side.

    Returns:
      Orders (4, L) int32: the cell that is read at a time. Steps (4, L) int32: places in
      ``STEPS``. ``np.argsort(order)`` undoes an order.
    """
    cells = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    lines = [cells.copy(), cells.T.copy()]
    if snake:
        for each in lines:
            each[1::2] = each[1::2, ::-1].copy()
    forward = np.stack([each.ravel() for each in lines])
    orders = np.concatenate([forward, forward[:, ::-1]])
    down, right = (np.diff(place, axis=1) for place in np.divmod(orders, columns))
    steps = np.zeros_like(orders)
    for number, move in enumerate(((0, 1), (0, -1), (-1, 0), (1, 0)), 1):
        steps[:, 1:][(down == move[0]) & (right == move[1])] = number
    return orders, steps
