"""Least squares and SGD on features, beside scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Peer
from sklearn.preprocessing import StandardScaler

from vision.probes.linear import FitError, fit_logistic
from vision.probes.ridge import prepare_ridge, signs
from vision.probes.sgd import fit_sgd


def random_data(count: int, width: int, classes: int = 3, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width))
    x = centres[labels] + rng.normal(size=(count, width)) * np.logspace(0, -2, width) + 3
    return x.astype(np.float32), labels


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize(("count", "width"), [(200, 11), (9, 40), (12, 12)])
def test_ridge_is_that_of_scikit_learn(count: int, width: int, standardise: bool):
    x, labels = random_data(count, width)
    x[:, 2] = 7  # a feature that is constant
    targets = signs(labels, 3)
    prepared = prepare_ridge(x, targets, standardise)
    given = StandardScaler().fit_transform(x.astype(np.float64)) if standardise else x
    test = random_data(20, width, seed=1)[0]
    test[:, 2] = 7
    for decay in (1e-3, 1.0, 100.0):
        peer = Peer(alpha=decay * count, solver="svd").fit(given, targets)
        fitted = prepared.fit(decay)
        scaled = StandardScaler().fit(x.astype(np.float64)).transform(test) if standardise else test
        np.testing.assert_allclose(fitted.logits(test), peer.predict(scaled), rtol=1e-4, atol=1e-4)
        weight = fitted.weight * (x.std(0, dtype=np.float64)[:, None] if standardise else 1)
        away = x.astype(np.float64) @ fitted.weight + fitted.bias - targets
        loss = np.mean(np.sum(away**2, 1)) + decay * np.sum(weight**2)
        assert fitted.loss == pytest.approx(loss, rel=1e-6, abs=1e-9)


def test_ridge_of_two_equal_rows_and_of_one():
    x = np.ones((2, 4), np.float32)
    assert prepare_ridge(x, np.asarray([[1.0], [3.0]])).fit(0.1).logits(x).ravel().tolist() == [
        2,
        2,
    ]
    alone = prepare_ridge(x[:1], np.asarray([[5.0]]), True).fit(1.0)
    assert alone.logits(9 * x).ravel().tolist() == [5, 5]
    with pytest.raises(FitError, match="decay=0"):
        prepare_ridge(x, x).fit(0)
    with pytest.raises(FitError, match=r"rows 0\.\.1 hold NaN"):
        prepare_ridge(np.full((2, 4), np.nan), x)
    with pytest.raises(FitError, match="targets hold NaN"):
        prepare_ridge(x, np.full((2, 1), np.inf))
    with pytest.raises(FitError, match=r"\(2, 4\) and targets \(3, 1\)"):
        prepare_ridge(x, np.zeros((3, 1)))


def by_hand(x, labels, rate, epochs, size, momentum, decay, seed):
    """The same updates in float64, one after the other."""
    draw = np.random.default_rng(seed)
    steps = -(-epochs * len(x) // size)
    order = np.concatenate([draw.permutation(len(x)) for _ in range(epochs + 1)])
    layer = [np.zeros((x.shape[1], 3)), np.zeros(3)]
    speed = [np.zeros_like(each) for each in layer]
    for t in range(steps):
        rows = order[t * size : (t + 1) * size]
        logits = x[rows] @ layer[0] + layer[1]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p[np.arange(size), labels[rows]] -= 1
        slope = [x[rows].T @ p / size + decay * layer[0], p.mean(0)]
        share = (1 + np.cos(np.pi * t / steps)) / 2
        for i in range(2):
            speed[i] = momentum * speed[i] + slope[i]
            layer[i] -= rate * share * (slope[i] + momentum * speed[i])
    return layer


def test_sgd_equals_explicit_updates():
    x, labels = random_data(50, 6)
    x = (x - x.mean(0)).astype(np.float64)
    options = {"epochs": 3, "batch_size": 16, "momentum": 0.8, "decay": 0.01, "seed": 4}
    actual = fit_sgd(x, labels, 3, (0.05, 0.3), **options)
    for rate, classifier in zip((0.05, 0.3), actual, strict=True):
        weight, bias = by_hand(x, labels, rate, 3, 16, 0.8, 0.01, 4)
        np.testing.assert_allclose(classifier.weight, weight, atol=2e-5)
        np.testing.assert_allclose(classifier.bias, bias, atol=2e-5)
        assert classifier.steps == 10
    again = fit_sgd(x, labels, 3, (0.3,), **options)[0]
    np.testing.assert_allclose(again.weight, actual[1].weight, atol=1e-6)
    reseeded = fit_sgd(x, labels, 3, (0.3,), **{**options, "seed": 5})[0]
    assert np.abs(reseeded.weight - again.weight).max() > 1e-3


def test_sgd_converges_and_reports_divergence_of_a_large_rate():
    x, labels = random_data(60, 5)
    x = x - x.mean(0)
    slow, wild = fit_sgd(x, labels, 3, (0.1, 1e30), epochs=150, batch_size=60, decay=0.1)
    best = fit_logistic(x, labels, 3, 0.1, tolerance=1e-10)
    assert slow.loss == pytest.approx(best.loss, abs=1e-4)
    assert slow.converged
    assert not wild.converged


def test_bad_arguments_of_sgd():
    x, labels = random_data(20, 4)
    for options, name in (
        ({"rates": ()}, "rates"),
        ({"rates": (0.1, -1.0)}, "rates"),
        ({"epochs": 0}, "epochs"),
        ({"momentum": 1.0}, "momentum"),
        ({"decay": -1.0}, "decay"),
    ):
        with pytest.raises(FitError, match=name):
            fit_sgd(x, labels, 3, **{"rates": (0.1,), **options})
    with pytest.raises(FitError, match="hold NaN"):
        fit_sgd(np.full((20, 4), np.nan), labels, 3, (0.1,))
    with pytest.raises(FitError, match="the classes are"):
        fit_sgd(x, labels + 1, 3, (0.1,))
