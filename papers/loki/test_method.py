"""Loki: the argmax where labels are all alike, the one between where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from papers.loki.method import GeometricAnswers, frechet, squared_distances
from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError

LINE = tuple((float(i),) for i in range(4))


def test_with_every_label_observed_and_all_alike_it_is_the_argmax():
    p = np.random.default_rng(0).dirichlet(np.ones(6), 200)
    assert (frechet(p, 1 - np.eye(6)) == p.argmax(1)).all()


def test_it_is_the_rounded_mean_on_a_line_and_the_midpoint_was_never_seen():
    p = np.random.default_rng(1).dirichlet(np.ones(2), 100)
    positions = np.arange(11.0)[:, None]
    squared = squared_distances(positions, np.array([0, 10]))
    assert squared.shape == (11, 2)
    np.testing.assert_array_equal(squared[3], [9, 49])
    np.testing.assert_array_equal(frechet(p, squared), np.rint(10 * p[:, 1]))
    assert frechet(np.array([[0.5, 0.5], [np.nan, 0.5]]), squared).tolist() == [5, -1]
    with pytest.raises(ValueError, match="3 probabilities, 2 distances"):
        frechet(np.ones((1, 3)), squared)


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first two pixels are log-odds of the labels 0 and 3; all pixels are features."""
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    return {"logits": pixels[:, :2], "embedding": pixels}


def scores(*chances: float) -> np.ndarray:
    image = np.zeros((len(chances), 12), np.float32)
    image[:, :2] = np.log([[1 - p, p] for p in chances])
    return image


@pytest.mark.parametrize("devices", [1, 8])
def test_answers_are_counted_by_both_rules(devices: int):
    image, label = scores(0.05, 0.3, 0.7, 0.9, 0.9), np.array([0, 1, 2, 3, -1], np.int32)
    got = run(GeometricAnswers(data(image=image, label=label), (0, 3), LINE), devices, predict)
    assert (got["argmax_top1"], got["loki_top1"]) == (0.5, 1)
    assert (got["argmax_squared"], got["loki_squared"]) == (0.5, 0)
    assert (got["argmax_unseen_top1"], got["loki_unseen_top1"]) == (0, 1)
    assert (got["examples"], got["unseen"], got["unlabelled"]) == (4, 2, 1)
    image[0, 0] = np.nan
    bad = run(GeometricAnswers(data(image=image, label=label), (0, 3), LINE), 1, predict)
    assert (bad["loki_top1"], bad["nan_examples"], bad["loki_squared"]) == (0.75, 1, 0)


def test_distances_come_from_the_means_of_features():
    rows = np.repeat(np.arange(4, dtype=np.int32), 3)
    image = np.zeros((12, 12), np.float32)
    image[:, 5] = rows  # on a line, in feature space
    means = data(image=image, label=rows)
    asked = data(image=scores(0.3, 0.7), label=np.array([1, 2], np.int32))
    got = run(GeometricAnswers(asked, (0, 3), means=means), 1, predict)
    assert got["loki_top1"] == 1
    lacking = data(image=image[3:], label=rows[3:])
    with pytest.raises(DataError, match="label 0 has no record"):
        run(GeometricAnswers(asked, (0, 3), means=lacking), 1, predict)


def test_what_does_not_fit_is_named():
    some = data(image=scores(0.5), label=np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="positions or means"):
        GeometricAnswers(some, (0, 3))
    with pytest.raises(ValueError, match="temperature"):
        GeometricAnswers(some, (0, 3), LINE, temperature=0.0)
    with pytest.raises(DataError, match=r"2 logits, and labels 0\.\.3"):
        run(GeometricAnswers(some, (0, 1, 3), LINE), 1, predict)
