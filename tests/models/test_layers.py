from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vision.models import layers
from vision.models.attention import even_tokens
from vision.models.layers import drop_path, drop_path_rates, dropout, query_key_value
from vision.models.posemb import resample_posemb, sincos2d
from vision.train.precision import Precision


def test_drop_path_keeps_the_expectation():
    x = np.tile(1 + np.arange(6, dtype=np.float32).reshape(1, 2, 3), (4000, 1, 1))
    y = np.asarray(drop_path(jnp.asarray(x), jax.random.key(0), 0.3))
    kept = (y != 0).any(axis=(1, 2))
    assert 0.66 < kept.mean() < 0.74
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-6)
    assert not y[~kept].any()
    # Standard error is about 1 percent.
    np.testing.assert_allclose(y.mean(0), x[0], rtol=0.04)
    array = jnp.asarray(x)
    assert drop_path(array, None, 0.3) is array
    assert drop_path(array, jax.random.key(0), None) is array
    np.testing.assert_array_equal(drop_path(array, jax.random.key(0), 0.0), x)
    half = jax.ShapeDtypeStruct((4, 2), jnp.bfloat16)
    assert jax.eval_shape(drop_path, half, jax.random.key(0), 0.3).dtype == jnp.bfloat16


def test_drop_path_rates():
    np.testing.assert_allclose(drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3], atol=1e-7)
    np.testing.assert_array_equal(drop_path_rates(0.3, 1), [0])


def test_dropout():
    x = jnp.ones((100, 100))
    y = dropout(x, jax.random.key(0), 0.25)
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert abs(float(y.mean()) - 1) < 0.03
    assert dropout(x, None, 0.25) is x
    assert dropout(x, jax.random.key(0), 0.0) is x


def test_resample_posemb_at_the_same_grid_is_the_identity():
    pos = jax.random.normal(jax.random.key(0), (3, 5, 4))
    np.testing.assert_array_equal(resample_posemb(pos, (3, 5), (3, 5)), pos)
    np.testing.assert_array_equal(resample_posemb(pos.reshape(15, 4), (3, 5), (3, 5)), pos)


@pytest.mark.parametrize("grid", [(14, 10), (4, 3), (7, 12)])
def test_resample_posemb_is_antialiased_bicubic(grid):
    """Equal to Pillow's, whose kernel and edges are the same."""
    pos = jax.random.normal(jax.random.key(0), (8, 6, 3))
    ours = resample_posemb(pos.reshape(48, 3), (8, 6), grid)
    theirs = [
        Image.fromarray(np.asarray(pos[..., i])).resize(grid[::-1], Image.Resampling.BICUBIC)
        for i in range(3)
    ]
    assert ours.shape == (*grid, 3)
    np.testing.assert_allclose(ours, np.stack([np.asarray(t) for t in theirs], -1), atol=1e-5)
    np.testing.assert_allclose(resample_posemb(jnp.ones((8, 6, 3)), (8, 6), grid), 1, atol=1e-6)


def test_resample_posemb_of_another_grid():
    with pytest.raises(ValueError, match=r"\(197, 8\) does not hold the 14 x 14 positions"):
        resample_posemb(jnp.zeros((197, 8)), (14, 14), (7, 7))


def test_sincos2d():
    pos = sincos2d((5, 7), 16)
    assert pos.shape == (5, 7, 16)
    assert pos.dtype == np.float32
    np.testing.assert_array_equal(pos[0, 0], np.repeat([0, 1, 0, 1], 4))
    x, y = pos[..., :8], pos[..., 8:]
    np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    np.testing.assert_allclose(x[0, 3, :4], np.sin(3 / 10_000 ** (np.arange(4) / 4)), rtol=1e-6)
    np.testing.assert_allclose(y[2, 0, 4:], np.cos(2 / 10_000 ** (np.arange(4) / 4)), rtol=1e-6)
    # A product depends on the distance between two places alone.
    flat = pos @ pos[2, 3]
    np.testing.assert_allclose(flat[1:, 1:][:3, :5], flat[1:, 1:][:3, :5][::-1, ::-1], atol=1e-5)
    with pytest.raises(ValueError, match="divisible by 4, not 6"):
        sincos2d((2, 2), 6)


class QueryKeyValue(nn.Module):
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        return query_key_value(x, 2, Precision(), nn.initializers.normal(1.0), self.use_bias)


@pytest.mark.parametrize("use_bias", [False, True])
def test_queries_keys_and_values_of_a_tpu_are_those_of_a_cpu(
    use_bias: bool, monkeypatch: pytest.MonkeyPatch
):
    """Three products there, one here, of the same parameters under the same names."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    module = QueryKeyValue(use_bias)
    q, k, v = module.init_with_output(jax.random.key(1), x)[0]
    variables = module.init(jax.random.key(1), x)
    assert q.shape == k.shape == v.shape == (2, 3, 2, 4)
    params: Any = variables["params"]
    kernel = params["qkv"]["kernel"]
    # The columns are q, k and v of the first head, then of the second.
    np.testing.assert_allclose(q[..., 1, :], x @ kernel[:, 12:16], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(v[..., 0, :], x @ kernel[:, 8:12], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(layers, "platform", lambda: "tpu")
    again = module.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    shifted = jax.tree.map(lambda leaf: leaf + 0.5, variables)
    there = module.apply(shifted, x)
    monkeypatch.undo()
    here = module.apply(shifted, x)
    for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_odd_tokens_by_even_ones(masked: bool, causal: bool):
    """The same output and gradients, with the token more that cuDNN needs."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (2, 5, 3, 8)) for key in keys[:3])
    mask = (jnp.arange(5) < jnp.asarray([[5], [3]]))[:, None, None] if masked else None
    mask = None if mask is None else jnp.broadcast_to(mask, (2, 1, 5, 5))
    bias = jax.random.normal(keys[3], (1, 3, 5, 5)) if masked else None
    call = functools.partial(jax.nn.dot_product_attention, is_causal=causal)

    def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(call(q, k, v, mask=mask, bias=bias)))

    def even(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        def checked(*arrays: jax.Array, **more: Any) -> jax.Array:
            assert [x.shape[1] for x in arrays] == [6, 6, 6]
            return call(*arrays, **more)

        return jnp.sum(jnp.sin(even_tokens(checked, q, k, v, mask, bias)))

    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(plain, (0, 1, 2))(q, k, v)),
        jax.tree.leaves(jax.value_and_grad(even, (0, 1, 2))(q, k, v)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
