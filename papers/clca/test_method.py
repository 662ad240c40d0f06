"""CLCA: off, it is the plain ViT; on, the tokens are counted and the cache holds what it should."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.clca.method import CLCA
from papers.clca.token_reduction import Attended, Gathered, Merged
from tests.block_tower import BlockTower
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.train.flops import count
from vision.train.objective import Context, Variables
from vision.train.tower import forward, initialise

MODEL: Any = BlockTower(depth=4, num_classes=3, registers=1)
CACHED = CLCA(MODEL, blocks=(1, 2), keep=0.25)
KEY = jax.random.key(0)


def batch(rows: int = 4, side: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(rows, side, side, 3)).astype(np.float32),
        "label": (np.arange(rows) % 3).astype(np.int32),
        "_mask": np.arange(rows) != rows - 1,
    }


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(CACHED.init, batch())


CTX = Context(jnp.zeros([], jnp.int32), 10, True, KEY)
STILL = dataclasses.replace(CTX, train=False, key=None)


def test_all_kept_without_cache_and_head_is_the_plain_vit_bit_for_bit():
    """One program has one gradient."""
    vit = ViT(width=8, depth=4, heads=2, patch=2, num_classes=3, registers=1)
    off = CLCA(vit, blocks=(1, 2), keep=1.0, cache=False, aggregate=False)
    params, state = jax.eval_shape(lambda b: initialise(vit, KEY, b["image"]), batch())

    def program(objective: Any) -> str:
        def loss(params: Any, state: Any, batch: Any) -> jax.Array:
            variables = Variables({"model": params}, {"model": state}, {})
            return objective.loss(variables, batch, CTX)[0]

        return jax.jit(loss).lower(params, state, batch()).as_text()

    assert program(off) == program(Classify(vit))


@pytest.mark.parametrize(
    ("rule", "adds"), [(Attended(), 1), (Attended(False), 0), (Merged(), 0), (Gathered(), 0)]
)
@pytest.mark.parametrize("cache", [True, False])
def test_tokens_are_counted_at_every_block(rule: Any, adds: int, cache: bool):
    model: Any = dataclasses.replace(MODEL, depth=6)
    objective = CLCA(model, rule, blocks=(1, 3), keep=0.3, cache=cache, aggregate=False)

    def out(key: jax.Array) -> Any:
        return objective.forward(objective.init(key, batch()), batch()["image"], STILL)[1]

    shapes = jax.eval_shape(out, KEY)
    lengths = [shapes[f"block{i:02d}"].shape[1] for i in range(6)]
    assert lengths == objective.sequence.lengths(16)
    # 16 patches, 5 of them kept; 4, 7 of which 3, ... by hand, class token and register on top.
    if not cache:
        second = -(-3 * (5 + adds) // 10) + adds
        assert lengths == [18, 7 + adds, 7 + adds, 2 + second, 2 + second, 2 + second]
    else:
        first = 5 + adds + 2
        second = -(-3 * first // 10) + adds + 4
        assert lengths == [18, 2 + first, 2 + first, 2 + second, 2 + second + 2, 2 + second + 2]


def test_the_cache_brings_back_means_and_carriers(variables: Any):
    """Without reduction, what joins after block 1 is that of block 0, and then that of block 1."""
    objective = dataclasses.replace(CACHED, keep=1.0)

    @quick_jit
    def outs(params: Any) -> Any:
        given = dataclasses.replace(variables, params=params)
        cached = objective.forward(given, batch()["image"], STILL)[1]
        return cached, forward(MODEL, params["model"], {}, batch()["image"], train=False)[1]

    given = {k: v for k, v in variables.params.items() if k != "rule"}
    out, plain = jax.device_get(outs(given))
    np.testing.assert_allclose(out["block01"][:, :18], plain["block01"], atol=1e-5)
    for block, source, patches in (("block01", "block00", 16), ("block02", "block01", 16)):
        joined = out[block][:, -2:]
        before = out[source]
        np.testing.assert_allclose(joined[:, 0], before[:, 2 : 2 + patches].mean(1), atol=1e-5)
        np.testing.assert_allclose(joined[:, 1], before[:, 1], atol=1e-6)
    assert out["block03"].shape[1] == 18 + 2 + 2


def test_every_network_learns_and_masked_rows_do_not(variables: Any):
    @quick_jit
    def step(params: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return CACHED.loss(variables.merge(params=params), batch, CTX)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, aux), gradient = step(variables.params, batch())
    loss, aux, gradient = jax.device_get((loss, aux, gradient))
    assert float(aux.weight) == 3
    assert set(aux.model_state) == {"model", "head"}
    kept, moved = (
        s["batch_stats"]["norm1"]["mean"]
        for s in (variables.model_state["head"], aux.model_state["head"])
    )
    assert np.abs(kept - moved).max() > 0
    for name, tree in gradient.items():
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(tree)), name
    assert np.isfinite(loss)


@pytest.mark.slow
def test_a_tenth_of_the_tokens_costs_less_than_half():
    def flops(objective: CLCA) -> int:
        images = {"image": jax.ShapeDtypeStruct((1, 448, 448, 3), jnp.float32)}
        variables = jax.eval_shape(objective.init, KEY, images)

        def call(variables: Variables, image: jax.Array) -> jax.Array:
            return objective.forward(variables, image, STILL)[0]

        return count(call, variables, images["image"])

    model = ViT(variant="S/16", num_classes=100, registers=1)
    plain = CLCA(model, keep=1.0, cache=False, aggregate=False)
    share = flops(CLCA(model)) / flops(plain)
    assert 0.25 < share < 0.45


def test_wrong_arguments_are_named():
    for changes, message in (
        ({"blocks": (2, 1)}, "rising"),
        ({"blocks": (4,)}, "has 4"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"model": dataclasses.replace(MODEL, registers=0)}, "registers=1"),
        ({"model": dataclasses.replace(MODEL, remat="full")}, "remat='none'"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CACHED, **changes)
