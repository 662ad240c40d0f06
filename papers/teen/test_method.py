"""Calibrated prototypes: without calibration nearest means, with all of it base classes alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.neighbors import NearestCentroid

from papers.teen.cosine_head import CosineHead
from papers.teen.evaluator import FewShotSessions
from papers.teen.method import calibrated
from tests.evaluators.linear_dual import data, run
from tests.tiny import drawn
from vision.data.source import DataError
from vision.evaluators.image_text.embeddings import normalised
from vision.models.plain_conv import PlainConv

RNG = np.random.default_rng(0)
# Classes 3 and 4 are new; 3 is like 0, 4 like 1.
CENTRES = np.eye(12)[[0, 1, 2, 0, 1]] + 0.7 * np.eye(12)[[5, 6, 7, 8, 9]]


def predict(_: Any, batch: Any) -> dict[str, Any]:
    return {"embedding": batch["image"].reshape(len(batch["image"]), -1)}


def records(each: int, noise: float = 0.4) -> dict[str, Any]:
    label = np.repeat(np.arange(5, dtype=np.int32), each)
    image = CENTRES[label] + noise * RNG.normal(size=(len(label), 12))
    return {"image": image.astype(np.float32), "label": label}


TRAIN, TEST = records(4), records(25)
STREAM: dict[str, Any] = {
    "train": data(**TRAIN),
    "test": data(**TEST),
    "base": (0, 1, 2),
    "sessions": ((3,), (4,)),
    "shots": 4,  # all that there are: nothing is random
}


def test_calibration_pulls_towards_the_base_class_that_is_alike():
    unit = normalised(CENTRES).astype(np.float32)
    new, base = unit[3:], unit[:3]
    mend = jax.jit(calibrated, static_argnums=2)
    np.testing.assert_array_equal(mend(new, base, 0.0), new)
    before = new @ base.T
    after = np.asarray(mend(new, base, 0.4)) @ base.T
    assert (np.diag(after) > np.diag(before)).all()
    mixture = softmax(16 * before, -1) @ base
    expected = mixture / np.linalg.norm(mixture, axis=1, keepdims=True)
    np.testing.assert_allclose(mend(new, base, 1.0), expected, rtol=1e-5)


def test_without_calibration_it_is_the_nearest_mean():
    got = run(FewShotSessions(**STREAM, alpha=0.0), 8, predict)
    means = NearestCentroid().fit(TRAIN["image"], TRAIN["label"]).centroids_
    peer = NearestCentroid().fit(normalised(means), np.arange(5))
    correct = peer.predict(normalised(TEST["image"])) == TEST["label"]
    assert got["session_2"] == pytest.approx(correct.mean())
    assert got["base"] == pytest.approx(correct[TEST["label"] < 3].mean())
    assert got["new"] == pytest.approx(correct[TEST["label"] >= 3].mean())
    first = NearestCentroid().fit(normalised(means)[:3], np.arange(3))
    old = TEST["label"] < 3
    alone = first.predict(normalised(TEST["image"][old])) == TEST["label"][old]
    assert got["session_0"] == pytest.approx(alone.mean())
    assert got["drop"] == pytest.approx(alone.mean() - correct.mean())
    harmonic = 2 / (1 / got["base"] + 1 / got["new"])
    assert got["harmonic"] == pytest.approx(harmonic)
    assert 0 < got["new"] < 1


def test_draws_are_averaged_and_new_classes_taken_for_base_ones_counted():
    rows = {**STREAM, "train": data(**records(9)), "draws": 3, "alpha": 1.0}
    got = run(FewShotSessions(**rows), 1, predict)
    again = run(FewShotSessions(**rows), 1, predict)
    assert {k: v for k, v in got.items() if k != "sessions"} == {
        k: v for k, v in again.items() if k != "sessions"
    }
    # Wholly calibrated prototypes lie between the base ones, and lose to them.
    kept = run(FewShotSessions(**{**rows, "alpha": 0.0}), 1, predict)
    assert got["new_as_base"] > kept["new_as_base"]
    with pytest.raises(DataError, match=r"9 records of class 0, not 10"):
        run(FewShotSessions(**{**rows, "shots": 10}), 1, predict)
    with pytest.raises(ValueError, match="a class occurs twice"):
        FewShotSessions(**{**rows, "base": (0, 3)})


def test_a_cosine_head_knows_no_length():
    tower = CosineHead(PlainConv(width=4, depth=1), num_classes=3, scale=10.0)
    image = RNG.random((2, 4, 4, 1)).astype(np.float32)
    params: Any = drawn(tower.init, image)["params"]
    assert params["classes"].shape == (3, 16)
    longer = {**params, "classes": 5 * np.asarray(params["classes"])}
    apply: Any = jax.jit(tower.apply)
    out, again = (jax.device_get(apply({"params": each}, image)[1]) for each in (params, longer))
    np.testing.assert_allclose(again["logits"], out["logits"], rtol=1e-5)
    assert np.abs(out["logits"]).max() <= 10
