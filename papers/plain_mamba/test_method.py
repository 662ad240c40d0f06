"""PlainMamba: the scan beside a loop, orders that never jump, sizes of the paper, taps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.plain_mamba.method import PlainMamba
from tests.models.tower_cases import (
    abstract_variables,
    assert_same,
    identity,
    quick_jit,
    random_variables,
    run,
)
from vision.blocks.selective_scan import STEPS, scan_orders, selective_scan
from vision.train.tower import Tap, count_params, forward

SIZES: dict[str, Any] = {"width": 8, "depth": 2, "patch": 2, "states": 3, "kernel": 3}
# Steps one by one are compiled sooner; all at once, they give the same.
SMALL = PlainMamba(**SIZES, stem="patches", num_classes=5, drop_path=0.1, sequential=True)
SHAPE = (2, 4, 6, 1)


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


@pytest.mark.parametrize(("variant", "millions"), [("L1", 7.3), ("L2", 25.7), ("L3", 50.5)])
def test_variants_have_the_parameters_of_the_paper(variant: str, millions: float):
    model = PlainMamba(variant=variant, sequential=True)  # pyright: ignore[reportArgumentType]
    params, state = abstract_variables(model, (1, 224, 224, 3))
    # Counted without the head, as the paper's.
    assert count_params(params) / 1e6 == pytest.approx(millions, abs=0.07)
    assert "stem_norm0" in state["batch_stats"]


@pytest.fixture(scope="module")
def variables() -> Any:
    return random_variables(SMALL, SHAPE)


def image(seed: int = 1) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def test_sites_and_taps_of_a_scanned_tower(variables: Any):
    out = run(SMALL, variables, image())
    shapes = {name: x.shape for name, x in out.items()}
    assert shapes == {
        **dict.fromkeys(("stem", "block00", "block01", "tokens"), (2, 6, 8)),
        "map": (2, 2, 3, 8),
        "pooled": (2, 8),
        "embedding": (2, 8),
        "logits": (2, 5),
    }
    at_once = SMALL.clone(sequential=False)
    assert_same(run(at_once, variables, image(), tap=Tap(identity)), out, atol=5e-6)
    cut = run(SMALL, variables, image(), tap=Tap(lambda _, x: 0 * x, sites="block01"))
    cut = jax.device_get(cut)
    assert np.abs(cut["block01"]).max() == 0
    np.testing.assert_array_equal(cut["logits"][0], cut["logits"][1])


def test_every_parameter_has_a_gradient_and_a_cell_hears_of_all(variables: Any):
    params, state = variables

    @quick_jit
    def gradients(x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            key = jax.random.key(3)
            out = forward(SMALL, params, state, x, train=True, key=key)[1]
            return jnp.sum(out["logits"][:, 0]) + jnp.sum(jnp.sin(out["map"][:, 1, 2]))

        return jax.grad(loss, (0, 1))(params, x)

    of_params, of_image = jax.device_get(gradients(image()))
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
        assert np.abs(leaf).max() > 0, path
    assert np.all(np.asarray(of_image) != 0)


def test_wrong_arguments_are_named():
    for wrong, message in (
        ({"variant": "L9"}, "variant is 'L9', expected one of 'L1'"),
        ({"width": 8}, "width and depth"),
        ({"variant": "L1", "kernel": 4}, "kernel is 4, expected a whole number >= 1, odd"),
        ({"variant": "L1", "patch": 1}, "patch=1"),
    ):
        with pytest.raises(ValueError, match=message):
            PlainMamba(**wrong)  # pyright: ignore[reportArgumentType]
