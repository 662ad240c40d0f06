"""Sweeps over a nuisance: first failures, ranks that change, and pictures that lost their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.evaluators.linear_dual import run
from vision.data import ops
from vision.data.ops.sliders import Slider
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluate.figures import Curve
from vision.evaluators.robustness.severity import Severity
from vision.metrics.arrays import MetricError
from vision.metrics.severity import (
    failure_points,
    fit_thresholds,
    on_class,
    rank_correlations,
)

GREY = np.asarray([40, 120, 200])
SCALES = (0.0, 0.5, 1.0, 2.0)


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest of three greys to the mean of a picture in -1..1."""
    mean = batch["image"].mean((1, 2, 3)) * 127.5 + 127.5
    return {"logits": -abs(mean[:, None] - GREY)}


def greys(count: int = 21) -> EvalData:
    rng = np.random.default_rng(0)
    label = (np.arange(count) % 3).astype(np.int32)
    image = GREY[label][:, None, None, None] + rng.normal(0, 30, (count, 12, 12, 3))
    label[-1] = -1
    source = Arrays({"image": np.clip(image, 0, 255).astype(np.uint8), "label": label})
    return EvalData(source, 8, ops=(ops.ValueRange(-1, 1),), threads=0)


@pytest.mark.parametrize("devices", [1, 8])
def test_trajectories(devices: int):
    data = greys()
    got = run(Severity(data, ("fog", "clutter"), SCALES), devices, predict)
    for name in ("fog", "clutter"):
        right = np.empty((20, len(SCALES)), bool)
        for i in range(20):
            for j, scale in enumerate(SCALES):
                rng = np.random.Generator(np.random.Philox(key=[0, i]))
                example = Slider(name, scale)(data.source[i], rng)
                predicted = abs(example["image"].mean() - GREY).argmin()
                right[i, j] = predicted == example["label"]
        top1 = right.mean(0)
        for scale, each in zip(SCALES, top1, strict=True):
            assert got[f"top1_{name}_{scale:g}"] == each
        assert got[f"drop_{name}"] == pytest.approx(top1[0] - top1[1:].mean())
        first = [next((s for s, ok in zip(SCALES, row, strict=True) if not ok), 3) for row in right]
        assert got[f"failure_{name}"] == pytest.approx(np.mean(first))
        counts = [got[f"failures_{name}_{scale:g}"] for scale in SCALES]
        assert counts == [first.count(scale) for scale in SCALES]
        assert sum(counts) + got[f"failures_{name}_never"] == got["examples"] == 20
    assert got["top1_fog_0"] == got["top1_clutter_0"] == 1 > got["top1_fog_2"]
    assert got["unlabelled"] == 1
    assert got["drop"] == pytest.approx((got["drop_fog"] + got["drop_clutter"]) / 2)
    assert isinstance(got["top1_by_scale"], Curve)
    assert [line.name for line in got["failures_by_scale"].lines] == ["fog", "clutter"]


def test_first_failures():
    right = np.asarray([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    failures = failure_points(right, np.asarray([0, 1, 2.5]), 3.0)
    assert failures.first.tolist() == [3, 1, 0, 2, 1]
    assert failures.count.tolist() == [1, 2, 1, 1]
    assert failures.mean == pytest.approx((3 + 1 + 0 + 2.5 + 1) / 5)
    none = failure_points(np.zeros((0, 3), bool), np.asarray([0, 1, 2]), 3.0)
    assert none.count.sum() == 0
    assert np.isnan(none.mean)
    with pytest.raises(ValueError, match="must increase"):
        failure_points(right, np.asarray([0, 1, 2.5]), 2.0)


def test_ranks_along_scales():
    accuracy = np.asarray([[0.9, 0.8, 0.3], [0.8, 0.8, 0.4], [0.5, 0.4, 0.1], [0.6, 0.2, 0.2]])
    correlations = rank_correlations(accuracy)
    assert np.diag(correlations) == pytest.approx(1)
    assert (
        correlations[0, 2] == correlations[2, 0] == pytest.approx(spearmanr(*accuracy.T[[0, 2]])[0])
    )
    assert correlations[0, 1] == pytest.approx(spearmanr(*accuracy.T[[0, 1]])[0])
    with pytest.raises(MetricError):
        rank_correlations(np.asarray([[0.1, np.nan], [0.2, 0.3]]))


def test_pictures_that_lost_their_class():
    rng = np.random.default_rng(1)
    good = rng.random(400) < 0.8
    scores = rng.normal(size=(400, 4)) + 2.5 * good[:, None]
    for least in (1, 2, 4):
        thresholds = fit_thresholds(scores, good, 0.9, least)
        kept = on_class(scores, thresholds, least)
        enough = [(row > thresholds).sum() >= least for row in scores]
        assert kept.tolist() == enough
        off = scores[~good]
        assert (~kept[~good]).mean() >= 0.9
        assert kept[good].mean() > 0.8
        # The next lower quantile of every score would let too many through.
        lower = [np.sort(column)[np.searchsorted(np.sort(column), t) - 1]
                 for column, t in zip(off.T, thresholds, strict=True)]  # fmt: skip
        assert (~on_class(off, np.asarray(lower), least)).mean() < 0.9
    assert on_class(scores, fit_thresholds(scores, good, 0.0)).all()
    assert not on_class(scores, fit_thresholds(scores, good, 1.0))[~good].any()
    assert not on_class(np.full((1, 4), np.nan), np.zeros(4)).any()
    with pytest.raises(MetricError, match="no image is off class"):
        fit_thresholds(scores, np.ones(400, bool))
    with pytest.raises(ValueError, match="least=5"):
        on_class(scores, np.zeros(4), 5)


def test_arguments_of_sweeps():
    for given, message in [
        ({"sliders": ("fog", "fog")}, "no item twice"),
        ({"sliders": ("rain",)}, r"sliders\[0\] is 'rain', expected one of"),
        ({"scales": (1.0, 0.5)}, "rising"),
        ({"scales": (0.0,)}, "at least 2 of them"),
        ({"scales": (-1.0, 0.0)}, r"scales\[0\] is -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Severity(greys(), **given)
