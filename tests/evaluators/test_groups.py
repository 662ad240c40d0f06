"""Groups, tails and several labels: evaluators on predictions that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.figures import Curve
from vision.evaluators.accuracy.groups import GroupedAccuracy, LongTail
from vision.evaluators.accuracy.multilabel import MultiLabelClassification
from vision.metrics.arrays import MetricError

CLASSES = 4


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first pixels are the logits."""
    return {"logits": batch["image"].reshape(len(batch["image"]), -1)[:, :CLASSES]}


def saying(classes: np.ndarray) -> np.ndarray:
    """Images of these classes."""
    image = np.random.default_rng(0).uniform(0, 0.5, (len(classes), 12))
    image[np.arange(len(classes)), classes] = 1
    return image


@pytest.mark.parametrize("devices", [1, 8])
def test_the_worst_group_and_what_is_in_none(devices: int):
    label = np.arange(40, dtype=np.int32) % CLASSES
    predicted = label.copy()
    predicted[:6] = (predicted[:6] + 1) % CLASSES  # six of the ten in the first group
    group = np.repeat(np.arange(4, dtype=np.int32), 10)
    group[30:35] = -1
    label[39] = -1
    names = ("sand", "snow", "empty", "sea")
    group[group == 2] = 1
    got = run(GroupedAccuracy(data(image=saying(predicted), label=label, group=group), names=names),
              devices, predict)  # fmt: skip
    assert (got["worst"], got["gap"]) == (0.4, 0.6)
    assert got["mean"] == pytest.approx((0.4 + 1 + 1) / 3)
    assert got["top1"] == pytest.approx(28 / 34)
    assert got["top1_snow_examples"] == 20
    assert got["top1_sand_low"] < 0.4 < got["top1_sand_high"]
    assert "top1_empty" not in got
    assert (got["examples"], got["ungrouped"], got["unlabelled"]) == (34, 5, 1)
    assert isinstance(got["groups"], Curve)
    shown = got["mistakes"].items
    assert {(each.group, each.index) for each in shown} == {("sand", i) for i in range(6)}
    assert all(each.label != each.prediction for each in shown)


def test_groups_without_names_and_without_examples():
    fields = {"image": saying(np.zeros(4, int)), "label": np.zeros(4, np.int32)}
    got = run(GroupedAccuracy(data(**fields, group=np.array([0, 0, 2, 2], np.int32))), 1, predict)
    assert got["top1_0"] == got["top1_2"] == 1
    with pytest.raises(DataError, match="no labelled example has a 'group'"):
        run(GroupedAccuracy(data(**fields, group=np.full(4, -1, np.int32))), 1, predict)
    with pytest.raises(MetricError):
        run(
            GroupedAccuracy(data(**fields, group=np.array([0, 0, 2, 2], np.int32)), names=("a",)),
            1,
            predict,
        )


def test_a_long_tail():
    label = np.repeat(np.arange(CLASSES, dtype=np.int32), 5)
    predicted = label.copy()
    predicted[17:] = 0  # the tail is taken for the head
    train = Arrays({"label": np.repeat(np.arange(CLASSES), [150, 110, 50, 3]).astype(np.int32)})
    got = run(LongTail(data(image=saying(predicted), label=label), train), 1, predict)
    assert (got["head"], got["medium"], got["tail"]) == (1, 1, 0.4)
    assert (got["head_classes"], got["medium_classes"], got["tail_classes"]) == (2, 1, 1)
    assert got["balanced"] == pytest.approx(balanced_accuracy_score(label, predicted))
    assert got["tail_examples"] == 5
    wrong = Arrays({"label": np.full(3, CLASSES, np.int32)})
    with pytest.raises(DataError, match="labels up to 4 and the logits 4 columns"):
        run(LongTail(data(image=saying(predicted), label=label), wrong), 1, predict)
    with pytest.raises(ValueError, match="tail_below"):
        LongTail(data(label=label), train, head_above=1, tail_below=9)


def test_several_labels_known_in_part():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(60, 12))
    labels = (rng.random((60, CLASSES)) < 0.4).astype(np.int32)
    labels[:, 3] = 0
    labels[:5] = 0
    unknown = rng.random((60, CLASSES)) < 0.1
    labels[unknown] = -1
    got = run(MultiLabelClassification(data(image=image, labels=labels)), 1, predict)
    scores = image[:, :CLASSES].astype(np.float32)
    exact = [
        average_precision_score(labels[known, k], scores[known, k])
        for k in range(3)
        for known in [labels[:, k] >= 0]
    ]
    assert got["map"] == pytest.approx(np.mean(exact))
    assert (got["classes"], got["classes_without_positives"]) == (3, 1)
    assert got["unknown"] == unknown.sum()
    some = (labels == 1).any(1)
    right = labels[np.arange(60), scores.argmax(1)] == 1
    assert got["real"] == pytest.approx(right[some].mean())
    assert got["examples_without_labels"] == (~some).sum()
    image[7, 0] = np.nan
    labels[7, 0] = 1
    with pytest.raises(MetricError, match="NaN scores"):
        run(MultiLabelClassification(data(image=image, labels=labels)), 1, predict)
