"""Selective scans: all steps at once beside a loop, and orders of a grid that never jump."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tower_cases import quick_jit
from vision.blocks.selective_scan import STEPS, log_rates, scan_orders, selective_scan, step_bias


def loop(u: Any, delta: Any, a: Any, b: Any, c: Any, skip: Any) -> np.ndarray:
    """The recurrence as it is written."""
    h, outputs = np.zeros(a.shape), []
    for t in range(len(u)):
        h = np.exp(delta[t][:, None] * a) * h + (delta[t] * u[t])[:, None] * b[t]
        outputs.append(h @ c[t] + skip * u[t])
    return np.stack(outputs)


def test_all_steps_at_once_are_the_steps_one_by_one_with_their_gradients():
    rng = np.random.default_rng(0)
    length, channels, states = 13, 5, 3
    given = (
        rng.normal(size=(2, length, channels)),
        np.exp(rng.normal(size=(2, length, channels)) - 1),
        -np.exp(rng.normal(size=(channels, states))),
        rng.normal(size=(2, length, states)),
        rng.normal(size=(2, length, states)),
        rng.normal(size=channels),
    )
    u, delta, a, b, c, skip = given
    expected = np.stack([loop(u[i], delta[i], a, b[i], c[i], skip) for i in (0, 1)])
    probe = rng.normal(size=expected.shape).astype(np.float32)

    @quick_jit
    def both(*given: Any) -> Any:
        every = tuple(range(6))

        def run(sequential: bool) -> Any:
            def score(*given: Any) -> Any:
                y = selective_scan(*given, sequential=sequential)
                return jnp.sum(y * probe), y

            return jax.value_and_grad(score, every, has_aux=True)(*given)

        return run(False), run(True)

    results = jax.device_get(both(*(np.asarray(x, np.float32) for x in given)))
    for (_, y), _ in results:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    (_, gradients), (_, one_by_one) = results
    for mine, wanted in zip(gradients, one_by_one, strict=True):
        scale = float(np.abs(wanted).max())
        assert scale > 0.1
        np.testing.assert_allclose(mine / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 6), (5, 3), (1, 4), (3, 1), (14, 14)])
def test_every_snake_visits_all_cells_and_says_where_it_goes(grid: tuple[int, int]):
    orders, steps = scan_orders(*grid)
    for order, step in zip(orders, steps, strict=True):
        assert sorted(order.tolist()) == list(range(grid[0] * grid[1]))
        places = np.stack(np.divmod(order, grid[1]), 1)
        moves = np.diff(places, axis=0)
        np.testing.assert_array_equal(np.abs(moves).sum(1), 1)
        names = {(0, 1): "right", (0, -1): "left", (-1, 0): "up", (1, 0): "down"}
        expected = ["start", *(names[tuple(move)] for move in moves.tolist())]
        assert [STEPS[i] for i in step] == expected
    first = [tuple(order[:2].tolist()) for order in orders]
    assert grid in ((1, 4), (3, 1)) or first[:2] == [(0, 1), (0, grid[1])]
    np.testing.assert_array_equal(orders[2:], orders[:2, ::-1])


def test_rasters_jump_at_the_ends_of_lines():
    orders, steps = scan_orders(2, 3, snake=False)
    np.testing.assert_array_equal(orders[:2], [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]])
    assert [STEPS[i] for i in steps[0]] == ["start", "right", "right", "start", "right", "right"]


def test_initial_rates_and_steps():
    np.testing.assert_allclose(np.exp(log_rates(jax.random.key(0), (2, 3))), [[1, 2, 3]] * 2)
    steps = jax.nn.softplus(step_bias(jax.random.key(0), (1000,)))
    assert steps.min() == pytest.approx(1e-3, rel=0.1)
    assert steps.max() == pytest.approx(0.1, rel=0.1)
