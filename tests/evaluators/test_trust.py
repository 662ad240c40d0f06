"""Calibration and out-of-distribution evaluators on a classifier whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError
from vision.evaluate.figures import Curve, Reliability
from vision.evaluators.accuracy.calibration import Calibration
from vision.evaluators.robustness.out_of_distribution import OutOfDistribution
from vision.metrics.calibration import expected_calibration_error
from vision.metrics.detection import auroc
from vision.metrics.out_of_distribution import fit_neighbours

SHARPNESS = 3.0


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first four pixels are log-odds, which the classifier believes three times too much."""
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    return {"logits": SHARPNESS * pixels[:, :4], "embedding": pixels}


def honest(count: int, seed: int) -> dict[str, Any]:
    """Labels drawn with the probabilities that the pixels say."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, 12)).astype(np.float32)
    chance = np.asarray(jax.nn.softmax(jnp.asarray(image[:, :4])))
    label = [rng.choice(4, p=row / row.sum()) for row in chance.astype(np.float64)]
    return {"image": image, "label": np.asarray(label, np.int32)}


@pytest.mark.parametrize("devices", [1, 8])
def test_a_temperature_takes_back_what_is_too_much(devices: int):
    test, val = honest(2000, 0), honest(2000, 1)
    test["label"][:7] = -1
    got = run(Calibration(data(**test), fit_on=data(**val)), devices, predict)
    assert got["temperature"] == pytest.approx(SHARPNESS, rel=0.1)
    assert got["scaled_ece"] < 0.03 < 0.1 < got["ece"]
    assert got["scaled_nll"] < got["nll"]
    assert (got["examples"], got["unlabelled"]) == (1993, 7)
    logits = SHARPNESS * test["image"][:, :4]
    exact = expected_calibration_error(logits, test["label"])
    assert got["ece"] == pytest.approx(exact, abs=1e-6)
    assert isinstance(got["scaled_reliability"], Reliability)
    plain = run(Calibration(data(**test)), devices, predict)
    assert plain["ece"] == got["ece"]
    assert "temperature" not in plain


def sets(shift: float) -> dict[str, Any]:
    """Strangers: little is said of any class, and other pixels are far from the known ones."""
    image = np.random.default_rng(7).normal(size=(60, 12)).astype(np.float32)
    image[:, :4] *= 0.2
    image[:, 4:] += shift
    return {"image": image}


def test_scores_tell_far_sets_better_than_near_ones():
    inside, train = honest(80, 2), honest(200, 3)
    scores = ("msp", "energy", "mahalanobis", "knn")
    outside = {"near": data(**sets(0.2)), "far": data(**sets(3.0))}
    evaluator = OutOfDistribution(data(**inside), outside, data(**train), scores, neighbours=5)
    got = run(evaluator, 8, predict)
    assert got["far_mahalanobis_auroc"] > 0.99 > 0.8 > got["near_mahalanobis_auroc"]
    assert got["far_mahalanobis_fpr95"] < 0.05
    bank = fit_neighbours(train["image"].reshape(200, -1), 5)
    far = (bank.score(x["image"].reshape(-1, 12)) for x in (inside, sets(3.0)))
    assert got["far_knn_auroc"] == pytest.approx(auroc(*far), abs=1e-6)
    assert got["near_msp_auroc"] > 0.7
    known, unknown = (SHARPNESS * x["image"][:, :4] for x in (inside, sets(0.2)))
    exact = auroc(*(np.asarray(jax.nn.logsumexp(jnp.asarray(z), -1)) for z in (known, unknown)))
    assert got["near_energy_auroc"] == pytest.approx(exact, abs=1e-6)
    accuracy = np.mean(known.argmax(1) == inside["label"])
    assert got["far_mahalanobis_oscr"] == pytest.approx(accuracy, abs=0.02)
    assert (got["examples"], got["examples_near"], got["examples_far"]) == (80, 60, 60)
    assert isinstance(got["near_open_set"], Curve)
    assert "nonfinite" not in got


def test_what_is_not_finite_is_left_out_and_counted():
    inside, strangers = honest(30, 2), sets(0.2)
    inside["image"][3, 0] = np.nan
    strangers["image"][:2, 1] = np.inf
    outside = {"near": data(**strangers)}
    got = run(OutOfDistribution(data(**inside), outside), 1, predict)
    assert (got["nonfinite"], got["examples"], got["examples_near"]) == (3, 29, 58)
    strangers["image"][:] = np.nan
    with pytest.raises(DataError, match="no record with finite logits"):
        run(OutOfDistribution(data(**inside), {"near": data(**strangers)}), 1, predict)


def test_bad_arguments():
    some = data(**honest(5, 0))
    with pytest.raises(ValueError, match=r"scores\[0\] is 'dice', expected one of 'msp'"):
        OutOfDistribution(some, {"x": some}, scores=("dice",))
    with pytest.raises(ValueError, match="set fit_on"):
        OutOfDistribution(some, {"x": some}, scores=("knn",))
    with pytest.raises(ValueError, match=r"outside is {}, .*not empty"):
        OutOfDistribution(some, {})
    with pytest.raises(ValueError, match="bins is 0"):
        Calibration(some, bins=0)
    with pytest.raises(ValueError, match="label"):
        run(Calibration(data(image=honest(5, 0)["image"])), 1, predict)
