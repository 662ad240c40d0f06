"""Logistic regression: scikit-learn's minimum, whatever the features' scale and offset."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vision.probes.linear import FitError, choose_decay, fit_logistic

CLASSES = 5


def random_data(count: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very unequal spread, far from zero, of classes that overlap."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(CLASSES, 12))
    labels = rng.integers(0, CLASSES, count)
    x = centres[labels] + noise * rng.normal(size=(count, 12))
    return (x * np.logspace(0, -2, 12) + 3).astype(np.float32), labels


@pytest.mark.parametrize("decay", [1e-1, 1e-4])
def test_the_minimum_is_that_of_scikit_learn(decay: float):
    x, labels = random_data(600)
    actual = fit_logistic(x, labels, CLASSES, decay, tolerance=1e-9)
    exact = LogisticRegression(C=1 / (600 * decay), tol=1e-10, max_iter=10_000, solver="newton-cg")
    exact.fit(x.astype(np.float64), labels)
    assert actual.converged
    theirs = exact.predict_proba(x)
    ours = np.exp(actual.logits(x))
    assert np.abs(ours / ours.sum(1, keepdims=True) - theirs).max() < 1e-3
    nll = -np.log(theirs[np.arange(600), labels]).mean() + decay / 2 * np.sum(exact.coef_**2)
    assert actual.loss == pytest.approx(nll, abs=2e-6)
    rough = fit_logistic(x, labels, CLASSES, decay)
    assert 0 <= rough.loss - actual.loss < 30 * 1e-5
    assert rough.steps < actual.steps


def test_warm_start():
    x, labels = random_data(600)
    first = fit_logistic(x, labels, CLASSES, 1e-2, tolerance=1e-9)
    again = fit_logistic(x, labels, CLASSES, 1e-2, start=first)
    assert again.steps <= 1
    assert again.loss == pytest.approx(first.loss, abs=1e-6)


def test_a_class_without_examples_is_never_predicted():
    x, labels = random_data(600)
    kept = labels != 2
    actual = fit_logistic(x[kept], labels[kept], CLASSES, 1e-3)
    assert 2 not in actual.logits(x).argmax(1)


def test_few_steps_are_reported_as_not_converged():
    x, labels = random_data(600)
    assert not fit_logistic(x, labels, CLASSES, 1e-4, max_steps=2).converged


def test_decays_are_compared_on_held_out_records():
    train, held_out = random_data(60, 1, noise=3.0), random_data(2000, 2, noise=3.0)
    actual = choose_decay(train, held_out, CLASSES, (1e-4, 1e-1, 1e3))
    assert list(actual) == [1e3, 1e-1, 1e-4]
    for decay, accuracy in actual.items():
        alone = fit_logistic(*train, CLASSES, decay, tolerance=1e-9)
        assert accuracy == pytest.approx(
            np.mean(alone.logits(held_out[0]).argmax(1) == held_out[1]), abs=0.02
        )
    assert actual[1e3] < max(actual.values()) < 0.6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 2))}, r"\(3, 2\) and labels \(4,\)"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "float64"),
        ({"labels": np.array([0, 1, 2, 1])}, r"0\.\.2, but the classes are 0\.\.1"),
        ({"labels": np.array([0, 1, -1, 1])}, "unlabelled"),
        ({"labels": np.array([1, 1, 1, 1])}, "all labels are 1"),
        ({"x": np.array([[0, 1], [1, np.nan], [0, 0], [1, 1]])}, "row 1"),
        ({"decay": 0.0}, "positive"),
    ],
)
def test_bad_input(change: dict, message: str):
    good = {"x": np.eye(4, 2), "labels": np.array([0, 1, 0, 1]), "num_classes": 2, "decay": 0.1}
    assert dataclasses.is_dataclass(fit_logistic(**good))
    with pytest.raises(FitError, match=message):
        fit_logistic(**{**good, **change})
