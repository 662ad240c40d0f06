"""CKA against its definition on N by N matrices; alignment, uniformity and rank in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from vision.metrics import representation
from vision.metrics.arrays import MetricError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)) + 3, RNG.normal(size=(40, 9))
Y[:, :3] += X[:, :3]


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ (x @ x.T) @ centre, centre @ (y @ y.T) @ centre
    return (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())


def unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al.'s estimator of HSIC, from matrices with an empty diagonal."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    cross = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * k.sum(0) @ m.sum(0)
    return (k * m).sum() + cross


def test_cka_equals_its_definition() -> None:
    assert representation.linear_cka(X, Y) == pytest.approx(gram_cka(X, Y), rel=1e-10)
    expected = unbiased(X, Y) / np.sqrt(unbiased(X, X) * unbiased(Y, Y))
    assert representation.linear_cka(X, Y, debiased=True) == pytest.approx(expected, rel=1e-9)
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    for debiased in (False, True):
        actual = representation.linear_cka(X, 1e-80 * (X @ turn) + 1e-80, debiased)
        assert actual == pytest.approx(1, rel=1e-9)
    wide = RNG.normal(size=(2, 40, 500))
    assert representation.linear_cka(*wide) > 0.8  # what the debiased form is for
    assert abs(representation.linear_cka(*wide, debiased=True)) < 0.1


def test_cka_of_few_rows_and_constants() -> None:
    assert np.isnan(representation.linear_cka(X, np.full((40, 2), 0.1)))
    assert np.isnan(representation.linear_cka(X[:1], Y[:1]))
    with pytest.raises(MetricError, match="at least 4 rows, not 3"):
        representation.linear_cka(X[:3], Y[:3], debiased=True)
    with pytest.raises(ValueError, match="x has 40 rows and y 39"):
        representation.linear_cka(X, Y[1:])
    with pytest.raises(MetricError, match="y: 1 of 40 rows hold NaN or infinity"):
        representation.linear_cka(X, np.where(np.arange(40)[:, None] == 4, np.nan, Y))


def test_alignment_and_uniformity(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (X, Y[:, :6]))
    expected = (np.linalg.norm(x - y, axis=1) ** 3).mean()
    assert representation.alignment(7 * X, Y[:, :6], 3) == pytest.approx(expected, rel=1e-12)
    assert representation.alignment(X, 2 * X) == pytest.approx(0, abs=1e-30)
    assert representation.alignment(X, -X) == pytest.approx(4)
    squared = np.square(x[:, None] - x).sum(-1)[np.triu_indices(40, 1)]
    expected = np.log(np.exp(-3 * squared).mean())
    assert representation.uniformity(X, 3) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("vision.metrics.arrays._CELLS", 7 * 40)  # blocks of 7 rows, the last of 5
    assert representation.uniformity(X, 3) == pytest.approx(expected, rel=1e-12)
    assert representation.uniformity(np.array([[1.0, 0], [-3, 0]])) == pytest.approx(-8)
    assert representation.uniformity(np.ones((5, 3))) == pytest.approx(0, abs=1e-12)
    assert np.isnan(representation.uniformity(X[:1]))
    assert np.isnan(representation.alignment(X[:0], X[:0]))
    with pytest.raises(MetricError, match=r"features: 1 of 2 rows are zeros .* row 1"):
        representation.uniformity(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="pairs lie in one space"):
        representation.alignment(X, Y)
    with pytest.raises(ValueError, match="t=0"):
        representation.uniformity(X, 0)


def test_effective_rank() -> None:
    basis = np.linalg.qr(RNG.normal(size=(30, 5)))[0]
    values = np.array([4.0, 2, 1, 1, 0])
    p = values[:4] / 8
    x = basis * values @ np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert representation.effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert representation.effective_rank(basis) == pytest.approx(5)
    assert representation.effective_rank(np.ones((9, 4))) == pytest.approx(1)
    assert np.isnan(representation.effective_rank(np.full((9, 4), 0.1), centre=True))
    assert np.isnan(representation.effective_rank(np.zeros((3, 2))))
    assert np.isnan(representation.effective_rank(np.zeros((0, 2))))
    shifted = x - x.mean(0)
    assert representation.effective_rank(x + 5, centre=True) == pytest.approx(
        representation.effective_rank(shifted)
    )
    with pytest.raises(ValueError, match=r"features is float64\[5\]"):
        representation.effective_rank(np.ones(5))
