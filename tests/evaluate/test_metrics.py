"""Metrics against plain NumPy: every size, with padding, ties, NaN, and long sums."""

from __future__ import annotations

import fractions
import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.evaluate import metrics as m
from vision.evaluate.figures import (
    ConfusionMatrix,
    Curve,
    Gallery,
    Line,
    Picture,
    Reliability,
    from_json,
    to_json,
)

CLASSES, BATCH, BINS = 7, 16, 15


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits - logits.max(-1, keepdims=True)
    return (x - np.log(np.exp(x).sum(-1, keepdims=True))).astype(np.float32)


def examples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits with many ties (a coarse grid), and labels of which some are missing."""
    rng = np.random.default_rng([seed, n])
    logits = (rng.integers(-4, 5, (n, CLASSES)) / 2).astype(np.float32)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    labels[rng.random(n) < 0.1] = -1
    return logits, labels


def top_k_reference(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """By a stable sort of falling scores."""
    right = [
        label in np.argsort(-row, kind="stable")[:k] and not np.isnan(row).any()
        for row, label in zip(logits, labels, strict=True)
        if label != -1
    ]
    return float(np.mean(right)) if right else float("nan")


def ece_reference(log_probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Bin by bin, with the bounds compared one by one."""
    keep = labels != -1
    log_probabilities, labels = log_probabilities[keep], labels[keep]
    confidence = np.exp(log_probabilities.max(-1))
    right = log_probabilities.argmax(-1) == labels
    edges = np.linspace(0, 1, bins + 1).astype(np.float32)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean(dtype=np.float64))
            total += inside.sum() * gap
    return total / len(labels) if len(labels) else float("nan")


@jax.jit
def measure(logits: Any, log_probabilities: Any, labels: Any, mask: Any) -> dict[str, Any]:
    given = {
        "logits": logits,
        "log_probabilities": log_probabilities,
        "labels": labels,
        "mask": mask,
    }
    return {
        "top1": m.TopKAccuracy.from_model_output(**given),
        "top3": m.TopKAccuracy.from_model_output(**given, k=3),
        "nll": m.NegativeLogLikelihood.from_model_output(**given),
        "ece": m.ExpectedCalibrationError.from_model_output(**given, bins=BINS),
        "confusion": m.ConfusionCounts.from_model_output(**given),
        "examples": m.Count.from_model_output(m.counted(m.hard_labels(labels, CLASSES), mask)),
        "mean": m.Mean.from_model_output(log_probabilities[:, 0], mask),
    }


def in_batches(logits: np.ndarray, labels: np.ndarray, junk: float = np.nan) -> dict[str, Any]:
    """All metrics over batches of 16; rows that only fill up hold ``junk``."""
    total: dict[str, Any] | None = None
    for start in range(0, len(labels), BATCH):
        part = slice(start, start + BATCH)
        short = BATCH - len(labels[part])
        rows = np.pad(logits[part], ((0, short), (0, 0)), constant_values=junk)
        log_rows = np.pad(log_softmax(logits[part]), ((0, short), (0, 0)), constant_values=junk)
        batch = measure(
            rows,
            log_rows,
            np.pad(labels[part], (0, short)),
            np.arange(BATCH) < BATCH - short,
        )
        total = batch if total is None else {k: total[k].merge(batch[k]) for k in batch}
    assert total is not None
    return {name: metric.compute() for name, metric in total.items()}


@pytest.mark.parametrize("n", range(1, 41))
def test_equal_to_numpy_for_every_size(n: int) -> None:
    logits, labels = examples(n)
    got = in_batches(logits, labels)
    keep = labels != -1
    log_probabilities = log_softmax(logits)
    own = log_probabilities[np.arange(n)[keep], labels[keep]].astype(np.float64)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (labels[keep], logits[keep].argmax(-1)), 1)

    assert got["examples"] == keep.sum()
    np.testing.assert_equal(got["top1"], top_k_reference(logits, labels, 1))
    np.testing.assert_equal(got["top3"], top_k_reference(logits, labels, 3))
    np.testing.assert_allclose(got["nll"], -own.mean() if keep.any() else np.nan, rtol=1e-12)
    np.testing.assert_allclose(
        got["ece"], ece_reference(log_probabilities, labels, BINS), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_array_equal(got["confusion"], confusion)
    np.testing.assert_allclose(
        got["mean"], log_probabilities[:, 0].astype(np.float64).mean(), rtol=1e-12
    )


def test_the_size_of_the_batches_changes_nothing() -> None:
    logits, labels = examples(160, seed=1)
    logits += np.random.default_rng(2).normal(size=logits.shape).astype(np.float32)
    whole = measure(logits, log_softmax(logits), labels, np.ones(160, bool))
    parts = in_batches(logits, labels)
    for name, metric in whole.items():
        np.testing.assert_allclose(parts[name], metric.compute(), rtol=1e-13, err_msg=name)


def test_reduce_adds_what_devices_hold() -> None:
    logits, labels = examples(64, seed=3)
    log_probabilities = log_softmax(logits)
    split = jax.vmap(measure)(
        logits.reshape(4, BATCH, CLASSES),
        log_probabilities.reshape(4, BATCH, CLASSES),
        labels.reshape(4, BATCH),
        np.ones((4, BATCH), bool),
    )
    for name, metric in in_batches(logits, labels).items():
        np.testing.assert_allclose(split[name].reduce().compute(), metric, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, CLASSES, CLASSES + 5])
def test_ties_rank_like_a_stable_sort(k: int) -> None:
    logits, labels = examples(500, seed=4)
    logits[:20] = 0
    logits[20:40, 1:] = -np.inf  # all but one class impossible
    got = m.TopKAccuracy.from_model_output(jnp.asarray(logits), jnp.asarray(labels), k=k)
    assert got.compute() == top_k_reference(logits, labels, k)


def test_all_scores_equal_predict_class_0() -> None:
    labels = jnp.arange(CLASSES)
    for k in range(1, CLASSES + 1):
        metric = m.TopKAccuracy.from_model_output(jnp.zeros((CLASSES, CLASSES)), labels, k=k)
        assert metric.compute() == k / CLASSES


def test_nan_is_wrong_and_reported() -> None:
    logits = np.eye(CLASSES, dtype=np.float32) * 9
    labels = np.arange(CLASSES, dtype=np.int32)
    mask = np.ones(CLASSES, bool)
    logits[2, 5] = np.nan  # not even at the true class
    logits[4] = np.nan
    got = {
        k: v.compute()
        for k, v in measure(logits, np.log(np.abs(logits) + 1e-9), labels, mask).items()
    }
    assert got["top1"] == got["top3"] == (CLASSES - 2) / CLASSES
    assert np.isnan(got["nll"])
    assert np.isnan(got["ece"])
    assert got["confusion"].sum() == CLASSES - 2
    assert m.Count.from_model_output(m.undefined_rows(jnp.asarray(logits))).compute() == 2
    top_all = m.TopKAccuracy.from_model_output(jnp.asarray(logits), jnp.asarray(labels), k=CLASSES)
    assert top_all.compute() == (CLASSES - 2) / CLASSES


def test_rows_without_a_finite_maximum_are_wrong_and_reported() -> None:
    inf = np.inf
    logits = jnp.asarray(
        [[inf, inf, inf], [inf, 0, 0], [-inf, -inf, -inf], [0, inf, -inf], [2, -inf, -inf]]
    )
    labels = jnp.zeros(5, jnp.int32)
    assert m.undefined_rows(logits).tolist() == [True] * 4 + [False]
    assert m.true_class_rank(logits, labels).tolist() == [3, 3, 3, 3, 0]
    for k in (1, 3):
        assert m.TopKAccuracy.from_model_output(logits, labels, k=k).compute() == 0.2
    assert m.ConfusionCounts.from_model_output(logits, labels).compute().sum() == 1
    assert np.isnan(m.NegativeLogLikelihood.from_model_output(logits, labels).compute())
    weights = jnp.asarray([[0.0, inf, 0.0], [0.0, 1.0, 0.0]])
    assert m.hard_labels(weights, 3).tolist() == [-2, 1]


def test_impossible_class_costs_infinity() -> None:
    log_probabilities = jnp.asarray([[0.0, -np.inf], [0.0, -np.inf], [0.0, -np.inf]])
    first = m.NegativeLogLikelihood.from_model_output(log_probabilities, jnp.asarray([0, 1, 0]))
    assert first.compute() == np.inf
    assert first.merge(first).compute() == np.inf


def test_labels_out_of_range_are_never_right() -> None:
    logits = jnp.zeros((3, CLASSES))
    labels = jnp.asarray([CLASSES, -2, 10**6])
    assert m.TopKAccuracy.from_model_output(logits, labels, k=CLASSES).compute() == 0
    assert np.isnan(m.NegativeLogLikelihood.from_model_output(logits, labels).compute())
    assert m.ConfusionCounts.from_model_output(logits, labels).compute().sum() == 0


def test_nothing_to_measure_is_nan() -> None:
    logits, labels = examples(BATCH)
    got = {
        k: v.compute()
        for k, v in measure(logits, log_softmax(logits), labels, np.zeros(BATCH, bool)).items()
    }
    assert got["examples"] == 0
    assert all(np.isnan(got[name]) for name in ("top1", "top3", "nll", "ece", "mean"))
    got = measure(logits, log_softmax(logits), np.full(BATCH, -1, np.int32), np.ones(BATCH, bool))
    assert np.isnan(got["top1"].compute())


def test_soft_labels_count_as_their_largest_class() -> None:
    soft = jnp.asarray([[0.2, 0.5, 0.3], [0.5, 0.5, 0], [0, 0, 0], [np.nan, 1, 0]])
    np.testing.assert_array_equal(m.hard_labels(soft, 3), [1, 0, -1, -2])
    hot = jnp.asarray([[0, 0, 1], [0, 1, 0]], bool)
    np.testing.assert_array_equal(m.hard_labels(hot, 3), [2, 1])
    logits, labels = examples(BATCH)
    one_hot = np.where((labels == -1)[:, None], 0, np.eye(CLASSES)[labels]).astype(np.float32)
    hard = measure(logits, log_softmax(logits), labels, np.ones(BATCH, bool))
    weights = measure(logits, log_softmax(logits), one_hot, np.ones(BATCH, bool))
    for name in ("top1", "top3", "confusion"):
        np.testing.assert_array_equal(hard[name].compute(), weights[name].compute())
    for name in ("nll", "ece"):
        np.testing.assert_allclose(hard[name].compute(), weights[name].compute(), rtol=1e-6)


@pytest.mark.parametrize("labels", [np.zeros(4, np.float32), np.zeros((4, 1), np.int32)])
def test_labels_of_another_kind_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels are"):
        m.hard_labels(jnp.asarray(labels), CLASSES)


def test_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    confidences = np.asarray([0.5, np.nextafter(np.float32(0.5), 1), 1.0], np.float32)
    log_probabilities = np.stack([np.log(confidences), np.full(3, -50)], -1)
    log_probabilities = jnp.asarray(log_probabilities, jnp.float32)
    exact = jnp.exp(log_probabilities.max(-1))
    metric = m.ExpectedCalibrationError.from_model_output(
        log_probabilities, jnp.zeros(3, jnp.int32), bins=2
    )
    assert exact[0] == 0.5  # the case is really on the edge
    below = int((exact <= 0.5).sum())
    np.testing.assert_array_equal(metric.reliability().count, [below, 3 - below])


def test_ece_of_a_known_case() -> None:
    """Confidence 0.9 everywhere and 70 % right is 0.2 away."""
    log_probabilities = jnp.log(jnp.tile(jnp.asarray([0.9, 0.1]), (10, 1)))
    labels = jnp.asarray([0] * 7 + [1] * 3)
    metric = m.ExpectedCalibrationError.from_model_output(log_probabilities, labels)
    assert metric.compute() == pytest.approx(0.2, abs=1e-7)
    bins = metric.reliability()
    assert bins.count[13] == 10
    assert bins.accuracy[13] == pytest.approx(0.7)
    assert np.isnan(bins.accuracy[0])


def test_long_sums_stay_exact() -> None:
    """40 million examples of 0.1: plain float32 would be off in the fourth digit."""
    batch, merges = 4096, 10_000
    one = m.Mean.from_model_output(jnp.full(batch, 0.1, jnp.float32))

    @jax.jit
    def add_up(one: m.Mean) -> m.Mean:
        zero = jax.tree.map(jnp.zeros_like, one)
        return jax.lax.fori_loop(0, merges, lambda _, total: total.merge(one), zero)

    total = add_up(one)
    assert int(total.count) == batch * merges
    assert total.compute() == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_sum_of_very_different_numbers() -> None:
    rng = np.random.default_rng(5)
    values = (rng.normal(size=5000) * 10.0 ** rng.integers(-3, 6, 5000)).astype(np.float32)
    exact = sum(fractions.Fraction(float(v)) for v in values) / len(values)
    got = m.Mean.from_model_output(jnp.asarray(values)).compute()
    assert got == pytest.approx(float(exact), rel=1e-9)


def test_counts_go_past_float32() -> None:
    """2^24 + 1 examples of which 2^24 are right: float32 would call that all."""
    metric = m.TopKAccuracy(jnp.int32(2**24), jnp.int32(2**24 + 1), 1)
    assert metric.compute() == 2**24 / (2**24 + 1) < 1


def test_different_k_do_not_add_up() -> None:
    make: Callable[[int], Any] = lambda k: m.TopKAccuracy(jnp.int32(0), jnp.int32(1), k)  # noqa: E731
    with pytest.raises(ValueError, match=r"top-1 and top-5"):
        make(1).merge(make(5))


FIGURES = [
    ConfusionMatrix(np.diag([3, 0, 2**40]), ("a", "<b>", "ü")),
    Reliability(
        np.asarray([0, 0.5, 1]),
        np.asarray([np.nan, 0.75]),
        np.asarray([np.nan, 1 / 3]),
        np.asarray([0, 3]),
    ),
    Gallery(
        (
            Picture(3, "x/3.png", "cat", "dog", 0.1 + 0.2, b"\x89PNG\x00\xff"),
            Picture(4, "x/4.png", "cat", "dog", float("nan"), note="gone"),
        )
    ),
    Gallery((Picture(3, "x/3.png", "cat", "dog", -0.5),), "similarity"),
    Curve((Line("a", np.asarray([0.0, 1.0]), np.asarray([np.inf, np.nan])),), "step", "loss"),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: type(f).__name__)
def test_figures_go_to_json_and_back(figure: Any) -> None:
    text = json.dumps(to_json(figure), allow_nan=False)
    again = from_json(json.loads(text))
    assert type(again) is type(figure)
    # repr: NaN is not equal to itself, and some fields are arrays.
    assert repr(again) == repr(figure)
    assert to_json(again) == to_json(figure)


def test_stored_galleries_of_probabilities_stay_readable() -> None:
    item = {"index": 3, "key": "x", "label": "cat", "prediction": "dog", "png": "", "note": ""}
    found = from_json({"kind": "gallery", "items": [{**item, "probability": 0.5}]})
    assert found == Gallery((Picture(3, "x", "cat", "dog", 0.5),), "probability")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "unknown kind of figure None"),
        ({"kind": "pie"}, "unknown kind of figure 'pie'"),
        ({"kind": "gallery"}, "items"),
        ({"kind": "gallery", "items": [], "score": "loss"}, "score='loss'"),
        ({"kind": "confusion_matrix", "class_names": ["a"], "cells": [[0, 1, 2]]}, "confusion"),
        ({"kind": "curve", "x_label": "", "y_label": "", "lines": [{"name": ""}]}, "curve"),
    ],
)
def test_broken_figures_are_named(data: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_json(data)
