"""Towers whose attention knows offsets; their numbers are in tests/weights/test_families.py."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tower_cases import assert_same, random_variables, run
from vision.models.relative_bias import class_token_rows, offset_rows
from vision.models.relative_vit import RelativeViT
from vision.models.rope import Rope
from vision.models.transformer import layer_of
from vision.train.tower import Tap, forward

Tiny = functools.partial(RelativeViT, width=16, depth=2, heads=2, patch=4, num_classes=3)
EVA = functools.partial(
    Tiny,
    rope=Rope(reference=(3, 3)),
    posemb="tokens",
    registers=1,
    qkv_bias="qv",
    activation="swiglu",
    mlp_norm=True,
    layer_scale=0.5,
)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 12, 3)), jnp.float32)


@pytest.mark.parametrize(
    "tower",
    [EVA, pytest.param(functools.partial(Tiny, bias="shared"), marks=pytest.mark.slow)],
    ids=["rope", "bias"],
)
def test_scanned_unrolled_and_tapped(tower):
    """One stack of parameters, however its blocks are run; attention is there for a tap."""
    params, state = random_variables(tower(), IMAGES.shape)
    plain = run(tower(), (params, state), IMAGES)
    blocks = {f"block{i:02d}": layer_of(params["blocks"], i) for i in range(2)}
    unrolled = {k: x for k, x in params.items() if k != "blocks"} | blocks
    assert_same(plain, run(tower(scan=False), (unrolled, state), IMAGES))
    seen = {}

    def keep(name, x):
        seen[name] = x
        return x

    _, out, _ = forward(
        tower(), params, state, IMAGES, train=False, tap=Tap(keep, "block01/attention")
    )
    tokens = out["tokens"].shape[1]
    assert seen["block01/attention"].shape == (2, 2, tokens, tokens)
    np.testing.assert_allclose(seen["block01/attention"].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(out["logits"], plain["logits"], atol=2e-6)
    assert out["map"].shape == (2, 2, 3, 16)


def test_gradients_are_those_without_rematerialisation():
    params, state = random_variables(EVA(), IMAGES.shape)

    def gradient(remat):
        def loss(params):
            out = forward(EVA(remat=remat), params, state, IMAGES, train=False)[1]
            return jnp.sum(out["logits"] ** 2)

        return jax.jit(jax.grad(loss))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(remat)) for remat in ("none", "full")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max() + 1e-6))


@pytest.mark.parametrize("halves", [False, True])
def test_products_depend_on_offsets_alone(halves):
    """The same query and key at two places of the same offset; and tokens before the grid stay."""
    rope, rng = Rope(halves=halves, temperature=100.0), np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 1, 8)).astype(np.float32)
    grid = (3, 4)
    turned_q, turned_k = (
        np.asarray(rope.turn(jnp.tile(x, (1, 13, 1, 1)), grid, 1)) for x in (q, k)
    )
    np.testing.assert_array_equal(turned_q[0, 0], q[0, 0])
    products = np.einsum("qd,kd->qk", turned_q[0, 1:, 0], turned_k[0, 1:, 0])
    rows = offset_rows(grid, grid)
    for row in np.unique(rows):
        assert np.ptp(products[rows == row]) < 1e-5
    assert np.ptp(products) > 0.1


def test_rows_of_the_class_token():
    rows = class_token_rows((2, 2))
    assert rows[0].tolist() == [11, 9, 9, 9, 9]
    assert rows[1:, 0].tolist() == [10] * 4
    np.testing.assert_array_equal(rows[1:, 1:], offset_rows((2, 2), (2, 2)))


def test_another_size():
    """Rotary positions go on; biases are of one grid, and say so."""
    for tower in (EVA(), Tiny(bias="block")):
        params, state = random_variables(tower, IMAGES.shape)
        wider = jnp.zeros((1, 8, 16, 3))
        if tower.bias == "none":
            assert forward(tower, params, state, wider, train=False)[1]["map"].shape[1:3] == (2, 4)
            continue
        with pytest.raises(ValueError, match="are not those of 2 x 4 patches"):
            jax.eval_shape(functools.partial(forward, tower, train=False), params, state, wider)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide"),
        ({"heads": 8, "rope": Rope()}, "rope needs heads of a multiple of 4, not 2"),
        ({"bias": "block", "registers": 2}, "bias needs one class token and no registers"),
        ({"mlp_norm": True}, "mlp_norm=True needs activation='swiglu'"),
        ({"class_token": False}, "pool='cls' needs class_token=True"),
    ],
)
def test_fields_that_do_not_go_together(fields, message):
    with pytest.raises(ValueError, match=message):
        Tiny(**fields)
    with pytest.raises(ValueError, match="neither reference nor offset"):
        Rope(coordinates="centered", offset=1.0)
