"""Intervals, paired tests, changed examples, corruption errors and effective robustness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from vision.metrics import robustness, significance
from vision.metrics.arrays import MetricError


def test_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    actual = significance.normal_interval(values, 0.9)
    half = 1.6448536269514722 * values.std(ddof=1) / np.sqrt(40)
    assert (actual.low, actual.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert (actual.value, actual.examples) == (values.mean(), 40)
    interval = significance.normal_interval(np.array([2.0]))
    assert interval.value == 2
    assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(significance.normal_interval(np.zeros(0)).value)


@pytest.mark.parametrize("kind", ["few values", "many values"])
def test_bootstrap_agrees_with_theory_and_is_a_function_of_its_seed(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, 400) * 1.0 if kind == "few values" else rng.normal(size=400)
    actual = significance.bootstrap_interval(values, 0.95, 4000, seed=3)
    # Of a mean of 400 the bootstrap is normal with the plug-in deviation, to about 2%.
    half = 1.96 * values.std() / 20
    assert actual.value - actual.low == pytest.approx(half, rel=0.08)
    assert actual.high - actual.value == pytest.approx(half, rel=0.08)
    assert significance.bootstrap_interval(values, 0.95, 4000, seed=3) == actual
    assert significance.bootstrap_interval(values, 0.95, 4000, seed=4) != actual


def test_paired_bootstrap_cancels_shared_difficulty() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=300)
    a, b = hard + 0.01 * rng.normal(size=(2, 300))
    b += 0.02
    actual = significance.paired_bootstrap(a, b, resamples=2000)
    assert actual.value == pytest.approx((b - a).mean())
    assert 0.01 < actual.low < actual.value < actual.high < 0.03
    back = significance.paired_bootstrap(b, a, resamples=2000)
    assert back.high < 0
    same = significance.paired_bootstrap(a > 0, a > 0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert np.isnan(significance.paired_bootstrap(a[:0], b[:0]).low)
    with pytest.raises(ValueError, match=r"b is float64\[299\]"):
        significance.paired_bootstrap(a, b[1:])
    with pytest.raises(MetricError, match="1 of 300 rows hold NaN"):
        significance.paired_bootstrap(a, np.where(np.arange(300) == 9, np.nan, b))
    with pytest.raises(ValueError, match="resamples=0"):
        significance.paired_bootstrap(a, b, resamples=0)


@pytest.mark.parametrize("pair", [(0, 0), (5, 5), (1, 9), (30, 12), (0, 700), (900, 1000)])
def test_mcnemar_equal_to_scipy(pair: tuple[int, int]) -> None:
    left, right = pair
    a = np.array([True] * left + [False] * right + [True, False])
    b = np.array([False] * left + [True] * right + [True, False])
    actual = significance.mcnemar(a, b)
    assert (actual.only_a, actual.only_b) == pair
    if sum(pair) == 0:
        assert (actual.exact_p, actual.chi2, actual.chi2_p) == (1, 0, 1)
        return
    assert actual.exact_p == pytest.approx(binomtest(left, left + right).pvalue, rel=1e-9)
    assert actual.chi2 == pytest.approx(max(abs(left - right) - 1, 0) ** 2 / (left + right))
    assert actual.chi2_p == pytest.approx(chi2.sf(actual.chi2, 1), rel=1e-9)


def test_changes() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, -1])
    before = np.array([0, 0, 0, 2, 1, -1, 0])
    after = np.array([0, 1, 1, 0, 1, 2, 1])
    actual = significance.changes(before, after, labels)
    assert actual.gained.tolist() == [2, 5]
    assert actual.lost.tolist() == [1]
    assert actual.moved.tolist() == [3]
    assert actual.examples == 6
    with pytest.raises(ValueError, match=r"after is int64\[6\]"):
        significance.changes(before, after[:6], labels)


def test_rank_correlation_of_two_models() -> None:
    a = np.random.default_rng(0).normal(size=50)
    actual = significance.rank_correlation(a, np.exp(a))
    assert (actual.spearman, actual.kendall) == pytest.approx((1, 1))
    assert actual.examples == 50
    constant = significance.rank_correlation(a, np.ones(50))
    assert np.isnan([constant.spearman, constant.kendall]).all()


def test_corruption_error() -> None:
    alexnet = {name: np.full(5, e) for name, e in robustness.ALEXNET_ERRORS.items()}
    own = robustness.corruption_error(alexnet, robustness.ALEXNET_CLEAN_ERROR)
    np.testing.assert_allclose(own.ce, 1)
    assert (own.mean, own.relative_mean, own.missing) == (pytest.approx(1), pytest.approx(1), ())
    baseline = {"fog": 0.5, "snow": 0.8, "frost": 0.2}
    errors = {"snow": np.array([0.2, 0.6]), "fog": np.array([0.1, 0.3, 0.5])}
    actual = robustness.corruption_error(errors, 0.1, baseline, 0.2)
    np.testing.assert_allclose(actual.ce, [0.6, 0.5, np.nan])
    np.testing.assert_allclose(actual.relative, [2 / 3, 0.5, np.nan])
    assert actual.mean == pytest.approx(0.55)
    assert actual.relative_mean == pytest.approx(7 / 12)
    assert actual.missing == ("frost",)
    worse = robustness.corruption_error({"frost": np.array([0.3])}, 0.1, baseline, 0.2)
    assert worse.mean == pytest.approx(1.5)
    assert np.isnan(worse.relative_mean)
    assert np.isnan(robustness.corruption_error({}, 0.1, baseline).mean)
    for bad in (np.zeros(0), np.array([40.0]), np.array([np.nan])):
        with pytest.raises(MetricError, match="errors of 'fog'"):
            robustness.corruption_error({"fog": bad}, 0.1, baseline)
    with pytest.raises(ValueError, match="'rain' is not in the baseline: fog, snow, frost"):
        robustness.corruption_error({"rain": np.ones(5)}, 0.1, baseline)
    with pytest.raises(MetricError, match="clean_error=76"):
        robustness.corruption_error({}, 76, baseline)


def test_effective_robustness() -> None:
    standard = np.array([0.55, 0.6, 0.7, 0.76, 0.8])
    expected = 1 / (1 + np.exp(-(0.9 * np.log(standard / (1 - standard)) - 0.7)))
    line = robustness.fit_robustness_line(standard, expected)
    assert (line.slope, line.intercept, line.r2) == pytest.approx((0.9, -0.7, 1.0), rel=1e-9)
    assert line.models == 5
    np.testing.assert_allclose(line.effective(standard, expected + 0.05), 0.05)
    noisy = np.clip(expected + 0.05 * np.random.default_rng(0).normal(size=5), 0.1, 0.9)
    fitted = robustness.fit_robustness_line(standard, noisy)
    x, y = (np.log(v / (1 - v)) for v in (standard, noisy))
    slope, intercept = np.polyfit(x, y, 1)
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept), rel=1e-9)
    assert fitted.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-9)
    with pytest.raises(MetricError, match=r"standard: 1\.0 \(model 1\) has no logit"):
        robustness.fit_robustness_line(np.array([0.5, 1.0]), np.array([0.4, 0.5]))
    with pytest.raises(MetricError, match="two different standard"):
        robustness.fit_robustness_line(np.array([0.5, 0.5]), np.array([0.4, 0.5]))
    with pytest.raises(ValueError, match="standard has 5 models and shifted 4"):
        robustness.fit_robustness_line(standard, expected[:4])
