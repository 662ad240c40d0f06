"""Scores from logits and features, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from vision.metrics import out_of_distribution as outliers
from vision.metrics.arrays import MetricError

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 3, -1] * 30)
FEATURES = RNG.normal(size=(120, 6)) @ RNG.normal(size=(6, 6)) + 3 * LABELS[:, None]
QUERIES = RNG.normal(size=(25, 6)) * 4


def test_scores_of_logits() -> None:
    z = np.array([[1.0, 2.0, -np.inf], [1e4, 1e4, 1e4], [-5.0, -5.0, -5.0]])
    e = np.exp(1.0)
    np.testing.assert_allclose(outliers.max_softmax(z), [e / (1 + e), 1 / 3, 1 / 3], rtol=1e-12)
    np.testing.assert_array_equal(outliers.max_logit(z), [2, 1e4, -5])
    np.testing.assert_allclose(
        outliers.energy(z), [1 + np.log(1 + e), 1e4 + np.log(3), np.log(3) - 5], rtol=1e-12
    )
    hot = 5 * np.log(np.exp(z[0, :2] / 5).sum())
    assert outliers.energy(z, 5.0)[0] == pytest.approx(hot, rel=1e-12)
    # float16 goes through float64: no overflow, and the confidence of equal logits is exact.
    assert outliers.max_softmax(np.full((1, 4), 60000, np.float16))[0] == 0.25
    for function in (outliers.max_softmax, outliers.max_logit, outliers.energy):
        assert function(z[:0]).shape == (0,)
        with pytest.raises(MetricError, match="logits: 1 of 3 rows hold NaN, the first is row 1"):
            function(np.array([[0.0], [np.nan], [0.0]]))


def test_mahalanobis_equal_to_scikit_learn() -> None:
    fitted = outliers.fit_mahalanobis(FEATURES, LABELS)
    assert fitted.classes.tolist() == [0, 1, 3]  # 2 has no examples, -1 is no class
    keep = LABELS >= 0
    means = {c: FEATURES[c == LABELS].mean(0) for c in (0, 1, 3)}
    centred = FEATURES[keep] - np.stack([means[c] for c in LABELS[keep]])
    peer = EmpiricalCovariance(assume_centered=True).fit(centred)
    expected = np.stack([peer.mahalanobis(QUERIES - mean) for mean in means.values()], 1)
    np.testing.assert_allclose(fitted.distances(QUERIES), expected, rtol=1e-9)
    np.testing.assert_array_equal(fitted.score(QUERIES), -fitted.distances(QUERIES).min(1))


def test_mahalanobis_is_invariant_to_shift_scale_and_copies() -> None:
    base = outliers.fit_mahalanobis(FEATURES, LABELS).score(QUERIES)
    moved = outliers.fit_mahalanobis(FEATURES * 1e-3 + 1e4, LABELS).score(QUERIES * 1e-3 + 1e4)
    np.testing.assert_allclose(moved, base, rtol=1e-5)

    # A copied column and a constant one make the covariance singular: nothing changes.
    def wide(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, x[:, :1], np.full((len(x), 1), 7.0)], axis=1)

    singular = outliers.fit_mahalanobis(wide(FEATURES), LABELS)
    assert singular.whitening.shape == (8, 6)
    np.testing.assert_allclose(singular.score(wide(QUERIES)), base, rtol=1e-7)


def test_mahalanobis_shrinkage() -> None:
    fitted = outliers.fit_mahalanobis(FEATURES, LABELS, shrinkage=1.0)
    keep = LABELS >= 0
    spread = sum(FEATURES[c == LABELS].var(0).sum() * 30 for c in (0, 1, 3)) / keep.sum() / 6
    means = np.stack([FEATURES[c == LABELS].mean(0) for c in (0, 1, 3)])
    expected = np.square(QUERIES[:, None] - means).sum(-1) / spread
    np.testing.assert_allclose(fitted.distances(QUERIES), expected, rtol=1e-9)


@pytest.mark.parametrize("normalise", [True, False])
def test_neighbours_equal_to_scikit_learn(normalise: bool) -> None:
    queries = np.concatenate([QUERIES, FEATURES[:2], FEATURES[:1]]).astype(np.float32)
    bank = np.concatenate([FEATURES, FEATURES[:1]]).astype(np.float32)
    fitted = outliers.fit_neighbours(bank, k=3, normalise=normalise)

    def prepared(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True) if normalise else x

    peer = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(prepared(bank))
    expected = peer.kneighbors(prepared(queries))[0][:, 2]
    np.testing.assert_allclose(-fitted.score(queries), expected, rtol=1e-6)
    # Two of the bank are the query itself: exactly zero, though the expanded square is not.
    assert outliers.fit_neighbours(bank, 2, normalise).score(bank[:1]) == 0
    assert outliers.fit_neighbours(bank, 121, normalise).score(queries).shape == (28,)


def test_virtual_logit_by_projection() -> None:
    kernel, bias = RNG.normal(size=(6, 4)), RNG.normal(size=4)
    fitted = outliers.fit_virtual_logit(FEATURES, kernel, bias, dimension=2)
    np.testing.assert_allclose(fitted.origin @ kernel + bias, 0, atol=1e-9)
    shifted = FEATURES - fitted.origin
    _, _, axes = np.linalg.svd(shifted)

    def rest(x: np.ndarray) -> np.ndarray:
        x = x - fitted.origin
        return np.linalg.norm(x - x @ axes[:2].T @ axes[:2], axis=1)

    alpha = (FEATURES @ kernel + bias).max(1).mean() / rest(FEATURES).mean()
    assert fitted.alpha == pytest.approx(alpha, rel=1e-9)
    logits = QUERIES @ kernel + bias
    expected = outliers.energy(logits) - alpha * rest(QUERIES)
    np.testing.assert_allclose(fitted.score(QUERIES, logits), expected, rtol=1e-8)
    assert outliers.fit_virtual_logit(FEATURES, kernel, bias).residual.shape == (6, 3)
    flat = FEATURES[:, :2] @ RNG.normal(size=(2, 6))
    with pytest.raises(MetricError, match="have no residual outside their 3 principal"):
        outliers.fit_virtual_logit(flat, kernel, np.zeros(4), dimension=3)


def test_errors_of_fitting() -> None:
    broken = FEATURES.copy()
    broken[7, 0] = np.inf
    kernel, bias = np.ones((6, 2)), np.ones(2)
    for call in (
        lambda: outliers.fit_mahalanobis(broken, LABELS),
        lambda: outliers.fit_neighbours(broken),
        lambda: outliers.fit_virtual_logit(broken, kernel, bias),
        lambda: outliers.fit_neighbours(FEATURES).score(broken),
    ):
        with pytest.raises(MetricError, match="NaN or infinity, the first is row 7"):
            call()
    with pytest.raises(MetricError, match="no labelled rows"):
        outliers.fit_mahalanobis(FEATURES, np.full(120, -1))
    with pytest.raises(MetricError, match="no spread within any of 120 classes"):
        outliers.fit_mahalanobis(FEATURES, np.arange(120))
    with pytest.raises(MetricError, match="no spread within any of 3 classes"):
        outliers.fit_mahalanobis(0.1 * LABELS[:, None] * np.ones(6), LABELS)
    with pytest.raises(ValueError, match="shrinkage=2"):
        outliers.fit_mahalanobis(FEATURES, LABELS, shrinkage=2)
    with pytest.raises(ValueError, match=r"k=121; it must be in 1\.\.120"):
        outliers.fit_neighbours(FEATURES, k=121)
    with pytest.raises(ValueError, match="it was fitted on 6"):
        outliers.fit_neighbours(FEATURES).score(QUERIES[:, :5])
    with pytest.raises(ValueError, match=r"dimension=6; it must be in 1\.\.5"):
        outliers.fit_virtual_logit(FEATURES, kernel, bias, dimension=6)
    with pytest.raises(ValueError, match="kernel"):
        outliers.fit_virtual_logit(FEATURES, kernel.T, bias)
