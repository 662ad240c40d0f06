"""Rules of token reduction beside loops, and what they must never touch."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.clca.token_reduction import Attended, Gathered, Merged, merge_pairs, number_kept


def tokens(count: int = 9, width: int = 4) -> Any:
    return np.random.default_rng(0).normal(size=(3, count, width)).astype(np.float32)


def weights(count: int = 9) -> Any:
    positive = np.exp(np.random.default_rng(1).normal(size=(3, 2, count, count)))
    return (positive / positive.sum(-1, keepdims=True)).astype(np.float32)


def test_attended_keeps_the_best_and_fuses_the_rest_by_attention():
    x, attention = tokens(), weights()

    @jax.jit
    def both(x: jax.Array, attention: jax.Array) -> list[jax.Array]:
        return [rule((), x, attention, 2, 3) for rule in (Attended(), Attended(fuse=False))]

    fused, bare = map(np.asarray, both(x, attention))
    assert fused.shape == (3, 2 + 3 + 1, 4)
    np.testing.assert_array_equal(fused[:, :5], bare)
    for row in range(3):
        scores = attention[row, :, 0, 2:].mean(0)
        order = np.argsort(-scores)
        np.testing.assert_array_equal(fused[row, :2], x[row, :2])
        np.testing.assert_array_equal(fused[row, 2:5], x[row, 2:][order[:3]])
        rest = (x[row, 2:] * scores[:, None])[order[3:]].sum(0)
        np.testing.assert_allclose(fused[row, 5], rest, atol=1e-6)


def test_merging_keeps_the_weighted_mean_and_takes_the_most_similar():
    x = tokens(8)
    x[:, 5] = 1.5 * x[:, 2]  # the best pair, an even place into an odd one
    sizes = np.full((3, 8, 1), 1.0, np.float32)
    merged_tokens, merged_sizes = map(
        np.asarray, jax.jit(merge_pairs, static_argnums=2)(x, sizes, 1)
    )
    assert merged_tokens.shape == (3, 7, 4)
    np.testing.assert_allclose(merged_sizes.sum((1, 2)), 8)
    np.testing.assert_allclose((merged_tokens * merged_sizes).sum(1), x.sum(1), atol=1e-5)
    merged = merged_tokens[np.arange(3), merged_sizes[..., 0].argmax(1)]
    np.testing.assert_allclose(merged, 1.25 * x[:, 2], atol=1e-6)


def test_merging_to_one_gives_the_mean():
    x = tokens(8)
    merged = np.asarray(jax.jit(Merged(), static_argnums=(3, 4))((), x, None, 1, 1))
    np.testing.assert_array_equal(merged[:, 0], x[:, 0])
    np.testing.assert_allclose(merged[:, 1], x[:, 1:].mean(1), atol=1e-5)
    fewer = jax.eval_shape(lambda x: Merged()((), x, None, 1, 4), x)
    assert fewer.shape == (3, 5, 4)


def test_gathered_tokens_are_convex_combinations_of_normalised_ones():
    x = tokens()
    rule = Gathered()
    params = jax.jit(rule.init, static_argnums=(1, 2))(jax.random.key(0), 4, 3)
    gather = jax.jit(lambda params: rule(params, x, None, 1, 3))
    gathered = np.asarray(gather(params))
    assert gathered.shape == (3, 4, 4)
    rest = x[:, 1:] - x[:, 1:].mean(-1, keepdims=True)
    rest /= np.sqrt(rest.var(-1, keepdims=True) + 1e-6)
    far = {**params, "queries": 1e5 * rest[0, :3]}
    best = (rest[0] @ rest[0, :3].T).argmax(0)
    np.testing.assert_allclose(gather(far)[0, 1:], rest[0][best], atol=1e-4)
    assert np.all(gathered[:, 1:].max(1) <= rest.max(1) + 1e-6)


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.7, 1.0])
def test_the_number_kept_is_rounded_up(keep: float):
    for count in (1, 10, 49, 196):
        assert number_kept(count, keep) == max(1, math.ceil(round(keep * count, 6)))


def test_gradients_reach_every_token():
    def score(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(Attended()((), x, weights(), 1, 2))) + jnp.sum(
            jnp.sin(Merged()((), x, None, 1, 3))
        )

    gradient = np.asarray(jax.jit(jax.grad(score))(tokens()))
    assert np.all(np.abs(gradient).max(-1) > 0)
