"""Inception-ResNet: a scale of 0 leaves the input, v2's plan, sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.inception_resnet.method import InceptionResNetV1
from papers.inception_resnet.plans import BLOCKS
from tests.models.tower_cases import abstract_variables, quick_jit
from tests.tiny import filled
from vision.models.inception import InceptionV4
from vision.models.inception_layers import Mixed, Plan
from vision.models.inception_resnet import (
    BLOCK_A,
    BLOCK_B,
    BLOCK_C,
    REDUCTION_A,
    REDUCTION_B,
    InceptionResNetV2,
)
from vision.train.flops import count
from vision.train.precision import Precision
from vision.train.tower import count_params, forward

BLOCK = BLOCKS[2]
MAP = np.random.default_rng(0).normal(size=(2, 2, 3, 16)).astype(np.float32)


def block(**plan: Any) -> Mixed:
    return Mixed(Plan(BLOCK, **plan), 1 / 64, Precision())


@pytest.fixture(scope="module")
def weights() -> Any:
    module = block(residual_scale=1.0)
    return filled(jax.eval_shape(lambda: module.init(jax.random.key(0), MAP, False)))


def test_a_block_adds_its_branches_times_the_scale(weights: Any):
    plans = [
        {"residual_scale": 1.0, "shortcut": False, "relu": False},
        {"residual_scale": 0.0},
        {"residual_scale": 0.3},
        {"residual_scale": 0.3, "relu": False},
    ]

    @quick_jit
    def every(weights: Any) -> list[jax.Array]:
        return [block(**plan).apply(weights, MAP, False) for plan in plans]  # pyright: ignore

    branches, nothing, scaled, linear = map(np.asarray, every(weights))
    assert np.abs(branches).max() > 0.1
    np.testing.assert_array_equal(nothing, np.maximum(MAP, 0))
    np.testing.assert_allclose(linear, MAP + 0.3 * branches, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(scaled, np.maximum(linear, 0))


def cost(tower: Any, side: int = 299) -> tuple[int, float]:
    """Parameters, and billions of multiply-adds of a forward pass."""
    variables = abstract_variables(tower, (1, side, side, 3))
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    call = lambda v, x: forward(tower, *v, x, train=False)[1]["logits"]  # noqa: E731
    return count_params(variables[0]), count(call, variables, image) / 2e9


def test_both_forms_cost_the_same():
    tower = InceptionResNetV1((1, 1, 1), small_images=True, num_classes=5)
    assert cost(tower, 9) == cost(tower.clone(residual=False), 9)


def test_v2_has_the_authors_plan_and_a_pure_form():
    """Ten, twenty and ten blocks; the last is not scaled and has no ReLU."""
    plans = InceptionResNetV2().blocks()
    kinds = [BLOCK_A] * 10 + [REDUCTION_A] + [BLOCK_B] * 20 + [REDUCTION_B] + [BLOCK_C] * 10
    assert [plan.branches for plan in plans] == kinds
    assert [plan.residual_scale for plan in plans] == (
        [0.17] * 10 + [None] + [0.1] * 20 + [None] + [0.2] * 9 + [1.0]
    )
    assert [plan.relu for plan in plans] == [True] * 41 + [False]
    pure = InceptionResNetV2(residual=False, scales=(0.3, 0.3, 0.3)).blocks()
    assert [plan.shortcut for plan in pure] == [plan.residual_scale is None for plan in plans]
    assert {plan.residual_scale for plan in pure} == {0.3, None, 1.0}


@pytest.mark.slow
def test_networks_cost_what_their_counterparts_do():
    """The paper has no table of costs; it says about Inception-v3's and Inception-v4's."""
    # timm's counts, in billions of multiply-adds: 13.18 and 12.28; Inception-v3's is 5.7.
    assert cost(InceptionResNetV2(num_classes=1000))[1] == pytest.approx(13.18, abs=0.05)
    assert cost(InceptionV4(num_classes=1000))[1] == pytest.approx(12.28, abs=0.05)
    assert cost(InceptionResNetV1(num_classes=1000))[1] == pytest.approx(5.7, rel=0.2)


def test_v1_has_the_maps_of_the_figures():
    tower, image = InceptionResNetV1(depths=(1, 1, 1)), jax.ShapeDtypeStruct((1, 299, 299, 3), "f4")
    init = lambda x: tower.init_with_output({"params": jax.random.key(0)}, x)  # noqa: E731
    (_, out), _ = jax.eval_shape(init, image)
    shapes = {site: out[site].shape[1:] for site in ("stem", "block01", "block03", "block04")}
    assert shapes == {
        "stem": (35, 35, 256),
        "block01": (17, 17, 896),
        "block03": (8, 8, 1792),
        "block04": (8, 8, 1792),
    }
    assert len(InceptionResNetV1().blocks()) == 5 + 1 + 10 + 1 + 5


def test_what_cannot_be_is_named():
    for small, side, message in ((True, 6, "6x6 is smaller than 7x7"), (False, 74, "than 75x75")):
        with pytest.raises(ValueError, match=message):
            abstract_variables(InceptionResNetV1(small_images=small), (1, side, side, 3))
    with pytest.raises(ValueError, match=r"width_multiplier=0\.01 times"):
        InceptionResNetV1(width_multiplier=0.01)
