"""Means of classes: no order, no split and no merge changes them; scikit-learn's answers."""

from __future__ import annotations

import jax
import numpy as np
from sklearn.neighbors import NearestCentroid

from vision.probes.class_means import ClassMeans, closeness, empty_means, merge, update

RNG = np.random.default_rng(0)
X = (5 + RNG.normal(size=(240, 7))).astype(np.float32)
LABELS = RNG.integers(0, 4, 240).astype(np.int32)
X += LABELS[:, None] * np.eye(7, dtype=np.float32)[3]


def streamed(order: np.ndarray, parts: int) -> ClassMeans:
    state = empty_means(5, 7)
    for rows in np.split(order, parts):
        state = update(state, X[rows], LABELS[rows])
    return state


def test_any_order_and_any_split_gives_the_means_of_all():
    expected = np.stack([X[c == LABELS].mean(0, dtype=np.float64) for c in range(4)])
    by_class = np.argsort(LABELS, kind="stable")
    for order, parts in ((RNG.permutation(240), 240), (by_class, 8), (np.arange(240), 1)):
        state = streamed(order, parts)
        np.testing.assert_allclose(state.mean[:4], expected, rtol=1e-6)
        assert state.present.tolist() == [True] * 4 + [False]
        np.testing.assert_array_equal(state.count[:4], np.bincount(LABELS))


def test_merged_streams_and_unlabelled_records():
    order = RNG.permutation(240)
    both = merge(streamed(order[:80], 8), streamed(order[80:], 8))
    at_once = streamed(order, 8)
    np.testing.assert_allclose(both.mean, at_once.mean, rtol=1e-6)
    np.testing.assert_array_equal(both.count, at_once.count)
    ignored = update(at_once, np.full((2, 7), np.inf, np.float32), np.array([-1, -1]))
    assert jax.tree.all(jax.tree.map(np.array_equal, ignored, at_once))


def test_updates_of_other_classes_leave_a_class_unchanged():
    before = streamed(np.flatnonzero(LABELS < 2), 1)
    after = update(before, X[LABELS >= 2], LABELS[LABELS >= 2])
    np.testing.assert_array_equal(after.mean[:2], before.mean[:2])


def test_nearest_is_that_of_scikit_learn():
    state = streamed(np.arange(240), 1)
    asked = (5 + RNG.normal(size=(500, 7))).astype(np.float32)
    peer = NearestCentroid().fit(X, LABELS)
    np.testing.assert_allclose(np.asarray(state.mean)[:4], peer.centroids_, rtol=1e-6)
    predicted = closeness(asked, state.mean, state.present)
    np.testing.assert_array_equal(predicted.argmax(1), peer.predict(asked))
    gaps = -0.5 * ((asked[:, None] - peer.centroids_) ** 2).sum(-1)
    ours = np.asarray(predicted)[:, :4]
    np.testing.assert_allclose(ours - ours[:, :1], gaps - gaps[:, :1], atol=2e-5)
    assert np.isneginf(predicted[:, 4]).all()


def test_cosine_ignores_norms():
    state = streamed(np.arange(240), 1)
    predicted = closeness(X, state.mean, state.present, "cosine")
    scaled = closeness(3 * X, 7 * state.mean, state.present, "cosine")
    np.testing.assert_allclose(predicted, scaled, rtol=1e-6)
    mean = np.asarray(state.mean)
    true = X @ mean[1] / np.linalg.norm(X, axis=1) / np.linalg.norm(mean[1])
    np.testing.assert_allclose(predicted[:, 1], true, rtol=1e-5)
