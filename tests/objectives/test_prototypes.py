"""Sinkhorn's balanced assignments and the distances that KoLeo spreads, by brute force."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vision.objectives.prototypes import cosines, koleo, sinkhorn

RNG = np.random.default_rng(0)
SCORES = RNG.uniform(-1, 1, (12, 5)).astype(np.float32)
MASK = np.arange(12) % 4 != 1
balance = jax.jit(sinkhorn, static_argnums=3)


def scaled(scores: np.ndarray, temperature: float, iterations: int) -> np.ndarray:
    """As published: columns, then rows, of a matrix whose sum is one."""
    q = np.exp(scores.astype(np.float64) / temperature).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * len(q)
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


def test_sinkhorn_is_the_scaling_of_rows_and_columns():
    for iterations in (1, 3):
        actual = np.asarray(balance(SCORES, MASK, 0.1, iterations))
        np.testing.assert_allclose(actual[MASK], scaled(SCORES[MASK], 0.1, iterations), atol=2e-6)
        assert not actual[~MASK].any()
        np.testing.assert_allclose(actual[MASK].sum(1), 1, rtol=1e-5)
    many = np.asarray(balance(SCORES, MASK, 0.5, 50))
    np.testing.assert_allclose(many.sum(0), MASK.sum() / 5, rtol=1e-3)
    plain = np.asarray(balance(SCORES, MASK, 0.1, 0))
    np.testing.assert_allclose(plain[MASK], jax.nn.softmax(SCORES[MASK] / 0.1), atol=1e-6)


def test_masked_rows_change_nothing_and_no_rows_are_finite():
    poisoned = np.where(MASK[:, None], SCORES, 1e4).astype(np.float32)
    np.testing.assert_array_equal(balance(poisoned, MASK, 0.1, 3), balance(SCORES, MASK, 0.1, 3))
    assert not np.asarray(balance(SCORES, np.zeros(12, bool), 0.1, 3)).any()
    assert np.isfinite(balance(1e3 * SCORES, MASK, 0.01, 3)).all()


def test_koleo_is_the_mean_log_distance_to_the_nearest():
    x = RNG.normal(size=(12, 6)).astype(np.float32)
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)[MASK]
    apart = np.linalg.norm(unit[:, None] - unit[None], axis=-1) + 9 * np.eye(len(unit))
    both = jax.jit(jax.value_and_grad(koleo))
    value, slope = both(x, MASK)
    np.testing.assert_allclose(value, -np.log(apart.min(1)).mean(), rtol=1e-5)
    assert np.isfinite(slope).all()
    assert np.abs(slope[MASK]).sum() > 0.1
    assert not np.any(np.asarray(slope)[~MASK])
    closer = np.concatenate([x[:6], x[:6] + 1e-3])
    assert both(closer, np.ones(12, bool))[0] > value + 3
    assert np.isfinite(both(np.ones_like(x), np.ones(12, bool))[1]).all()
    assert both(x, np.arange(12) == 3)[0] == 0


def test_cosines_ignore_norms():
    x, kernel = (jnp.asarray(RNG.normal(size=shape)) for shape in ((3, 2, 4), (4, 5)))
    actual = cosines(x, kernel)
    expected = (x @ kernel) / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(actual, expected / np.linalg.norm(kernel, axis=0), atol=1e-5)
    np.testing.assert_allclose(cosines(7 * x, 0.1 * kernel), actual, atol=1e-5)
    assert not np.any(cosines(0 * x, kernel))
