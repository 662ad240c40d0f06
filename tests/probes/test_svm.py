"""Support vector machines and whitening, beside scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC

from vision.probes.linear import FitError
from vision.probes.svm import fit_svm
from vision.probes.whitening import fit_whitening, signed_root


def made(count: int = 90, width: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    return rng.normal(size=(count, width)) + 1.2 * rng.normal(size=(4, width))[labels], labels


@pytest.mark.parametrize("c", [0.01, 3.0])
def test_scores_are_those_of_scikit_learn(c: float):
    x, labels = made()
    svm = fit_svm(x, labels, 4, c, tolerance=1e-8)
    primal: Any = False
    peer = LinearSVC(C=c, dual=primal, tol=1e-10, max_iter=10_000).fit(x, labels)
    np.testing.assert_allclose(svm.weight.T, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(svm.bias, peer.intercept_, atol=1e-4)
    assert svm.converged
    sign = 2 * np.eye(4)[labels] - 1
    lack = np.maximum(1 - sign * (x @ svm.weight + svm.bias), 0)
    loss = (np.sum(svm.weight**2) + np.sum(svm.bias**2)) / 2 + c * np.sum(lack**2)
    assert svm.loss == pytest.approx(loss, rel=1e-9)


def test_a_class_without_examples_is_never_predicted_and_errors():
    x, labels = made()
    kept = labels != 2
    predicted = fit_svm(x[kept], labels[kept], 4, 1.0).logits(x).argmax(1)
    assert 2 not in predicted
    with pytest.raises(FitError, match="c=0"):
        fit_svm(x, labels, 4, 0)
    with pytest.raises(FitError, match="all labels are 1"):
        fit_svm(x, np.ones(90, int), 4, 1.0)


def test_whitened_features_are_those_of_scikit_learn_but_for_signs():
    x = made(60, 9)[0]
    whitening = fit_whitening(x, 5)
    white = whitening(x)
    np.testing.assert_allclose(white.T @ white / 60, np.eye(5), atol=1e-5)
    peer = PCA(5, whiten=True).fit(x).transform(x) * np.sqrt(60 / 59)  # its N is less one
    np.testing.assert_allclose(np.abs(white), np.abs(peer), atol=1e-4)
    with pytest.raises(FitError, match="dimension=3: these features vary in 2"):
        fit_whitening(x[:, :2] @ np.ones((2, 4)) + x[:, :1] * np.eye(1, 4), 3)
    with pytest.raises(FitError, match="hold NaN"):
        fit_whitening(np.full((4, 4), np.nan), 1)
    assert signed_root(np.asarray([-4.0, 0, 9])).tolist() == [-2, 0, 3]
