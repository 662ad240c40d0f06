"""Agreement of predictions with the labels of several annotators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError
from vision.evaluators.accuracy.annotators import AnnotatorAgreement
from vision.metrics.annotators import annotator_scores
from vision.metrics.arrays import MetricError

NAMES = ("eczema", "acne", "hives")


def test_one_sure_grader_is_top_k_and_the_true_probability():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    actual = annotator_scores(logits, np.eye(3)[label], (1, 2))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true_probability = p[np.arange(50), label]
    assert actual.any_of[1] == np.mean(logits.argmax(1) == label)
    assert actual.any_of[2] == np.mean(logits.argmin(1) != label)
    assert actual.overlap == pytest.approx(true_probability.mean())
    assert actual.cross_entropy == pytest.approx(-np.log(true_probability).mean())


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first pixels are the logits."""
    return {"logits": batch["image"].reshape(len(batch["image"]), -1)[:, :3]}


@pytest.mark.parametrize("devices", [1, 8])
def test_the_evaluator_counts_who_has_no_label_or_no_answer(devices: int):
    image = np.zeros((5, 12), np.float32)
    image[:, :3] = np.log([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1], [1, 1, 1], [1, 1, 1]])
    weights = np.array([[0.4, 0.6, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], np.float32)
    got = run(AnnotatorAgreement(data(image=image, weights=weights), k=(1, 2)), devices, predict)
    assert (got["examples"], got["ungraded"]) == (4, 1)
    assert (got["top1_any"], got["top2_any"]) == (0.5, 0.75)
    assert got["overlap"] == pytest.approx(np.mean([0.4 + 0.3, 0.2, 0.8, 1 / 3]))
    image[0, 0] = np.nan
    bad = run(AnnotatorAgreement(data(image=image, weights=weights)), devices, predict)
    assert (bad["top1_any"], bad["nonfinite"]) == (0.25, 1)
    assert np.isnan(bad["overlap"])
    assert np.isnan(bad["soft_nll"])


def test_what_is_no_distribution_is_named():
    weights = np.array([[1, 0, 0], [0.5, 0.2, 0]])
    with pytest.raises(MetricError, match=r"first row 1, which adds up to 0\.7"):
        annotator_scores(np.zeros((2, 3)), weights)
    with pytest.raises(ValueError, match="each from 1 to the 3 classes"):
        annotator_scores(np.zeros((2, 3)), np.eye(3)[:2], (4,))
    with pytest.raises(ValueError, match=r"k is \(\), .* >= 1, not empty"):
        AnnotatorAgreement(data(image=np.zeros((1, 12))), k=())
    none = data(image=np.zeros((2, 12)), weights=np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="no example has 'weights'"):
        run(AnnotatorAgreement(none), 1, predict)
