"""The projection, the lower problem without anything to forget, and whom the search finds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.worst_forget.method import WorstForget
from papers.worst_forget.problems import project as projected
from papers.worst_forget.problems import relearn
from vision.data.pipeline import EvalData
from vision.data.sources.digits import Digits

READ = EvalData(Digits("test"), batch_size=8)


def losses(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of a linear classifier of images (N, D)."""
    log = jax.nn.log_softmax(images @ params)
    return -jnp.take_along_axis(log, labels[:, None], 1)[:, 0]


@pytest.fixture(scope="module")
def points() -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Two tight clusters, and four points alone on the wrong side."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20).astype(np.int32)
    x = rng.normal(size=(40, 2)) * 0.1 + np.where(label, 1.0, -1.0)[:, None]
    odd = np.arange(40) % 10 == 3
    label[odd] = 1 - label[odd]
    return jnp.asarray(x, jnp.float32), jnp.asarray(label), odd


def test_the_projection_is_the_nearest_point_of_the_set():
    rng = np.random.default_rng(0)
    w = rng.normal(size=50).astype(np.float32) * 3
    project = jax.jit(projected)
    for total in (0.0, 1.0, 7.0, 50.0):
        nearest = np.asarray(project(w, total), float)
        assert nearest.min() >= 0
        assert nearest.max() <= 1
        np.testing.assert_allclose(nearest.sum(), total, atol=1e-4)
        for _ in range(20):  # no point of the set makes an acute angle
            other = np.asarray(project(rng.normal(size=50).astype(np.float32) * 3, total), float)
            assert (w - nearest) @ (other - nearest) < 1e-2
    inside = np.full(10, 0.3, np.float32)
    np.testing.assert_allclose(project(inside, 3.0), inside, atol=1e-6)


def test_with_nothing_to_forget_it_is_plain_fine_tuning(points: Any):
    x, label, _ = points
    order = np.random.default_rng(1).integers(0, 40, (5, 8))

    @jax.jit
    def relearned(start: jax.Array) -> jax.Array:
        return relearn(losses, start, jnp.ones(40), x, label, jnp.asarray(order), 0.1)

    @jax.jit
    def slope(params: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
        return jax.grad(lambda p: losses(p, images, labels).mean())(params)

    plain = np.zeros((2, 2), np.float32)
    weights = relearned(plain)
    for places in order:
        grads = slope(plain, np.asarray(x)[places], np.asarray(label)[places])
        plain = plain - np.float32(0.1) * np.sign(grads)
    np.testing.assert_allclose(weights, plain, atol=1e-6)
    assert np.abs(np.asarray(plain)).max() > 0


def test_what_the_rest_tells_is_hard_to_forget_and_what_contradicts_it_easy(points: Any):
    x, label, odd = points
    theta = jnp.asarray(np.array([[-0.5, 0.5], [-0.5, 0.5]], np.float32))
    options: Any = {"share": 0.1, "rounds": 3, "steps": 20, "batch_size": 8, "learning_rate": 0.05}

    def w(**more: Any) -> np.ndarray:
        work = WorstForget("", READ, **options, **more)
        group = np.asarray(label) if more.get("by_class") else np.arange(40)
        return work.searched(losses, theta, x, label, group)[0]

    worst, easiest = w(), w(easiest=True)
    assert worst.sum() == pytest.approx(4, abs=1e-3)
    assert worst[odd].max() < 1e-3
    np.testing.assert_allclose(easiest[odd], 1, atol=1e-3)
    assert w(by_class=True).sum() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="share"):
        WorstForget("", READ, share=1.0)
