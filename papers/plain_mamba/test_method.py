"""PlainMamba: sizes of the paper, sites and taps, gradients."""

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
from vision.train.tower import Tap, count_params, forward

SIZES: dict[str, Any] = {"width": 8, "depth": 2, "patch": 2, "states": 3, "kernel": 3}
# Steps one by one are compiled sooner; all at once, they give the same.
SMALL = PlainMamba(**SIZES, stem="patches", num_classes=5, drop_path=0.1, sequential=True)
SHAPE = (2, 4, 6, 1)


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
