"""Sensitivity against numpy written out, its identities, and the evaluator."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from papers.rigid.method import SCORE, NoiseSensitivity, Sensitivity, threshold
from tests.evaluators.linear_dual import data, predict, run
from vision.data.source import DataError
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(60, 12)).astype(np.float32)
VARIABLES = Variables({"scale": np.float32(1)}, {}, {})
BATCH = {
    "image": IMAGES[:5].reshape(5, 3, 4, 1),
    "_index": np.asarray([3, 1, 4, 0, 9], np.int32),
}


def scores(batch: Any = BATCH, **fields: Any) -> np.ndarray:
    scoring = Sensitivity(predict, **fields)
    return np.asarray(jax.jit(lambda batch: scoring(VARIABLES, batch)[SCORE])(batch))


def test_the_score_is_the_cosine_under_noise_of_its_own():
    got = scores(scale=0.1, std=(0.5,), draws=2, seed=7)
    expected = np.zeros(5)
    for row, index in enumerate(BATCH["_index"]):
        x = BATCH["image"][row].ravel()
        for draw in range(2):
            key = jax.random.fold_in(jax.random.key(7), draw)
            d = np.asarray(jax.random.normal(jax.random.fold_in(key, index), (3, 4, 1))).ravel()
            y = x + 0.1 / 0.5 * d
            expected[row] += x @ y / np.linalg.norm(x) / np.linalg.norm(y) / 2
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # A record's noise does not depend on what is beside it.
    order = np.asarray([4, 2, 0, 1, 3])
    moved = {name: x[order] for name, x in BATCH.items()}
    again = scores(moved, scale=0.1, std=(0.5,), draws=2, seed=7)
    np.testing.assert_allclose(again, got[order], atol=1e-6)


def test_without_noise_nothing_moves_and_more_noise_moves_more():
    np.testing.assert_allclose(scores(scale=0.0), 1, atol=1e-6)
    assert scores(scale=0.05).mean() > scores(scale=0.5).mean()
    with pytest.raises(ValueError, match="'image' is uint8"):
        scores({**BATCH, "image": np.zeros((5, 3, 4, 1), np.uint8)})
    with pytest.raises(ValueError, match=r"std=\(1, 2\): one, or one for each of 1 channels"):
        scores(std=(1, 2))
    with pytest.raises(ValueError, match="not 'tokens'"):
        scores(features="tokens")


def test_threshold_keeps_its_share_of_real_ones():
    x = RNG.random(1001)
    assert np.mean(x > threshold(x)) == pytest.approx(0.95, abs=1e-3)


def test_the_evaluator_is_scikit_learn_on_the_scores():
    def of(images: np.ndarray) -> Any:
        return data(image=images)

    weak = 0.3 * IMAGES[40:]  # the same noise turns short vectors further
    evaluator = NoiseSensitivity(
        of(IMAGES[:20]), of(IMAGES[20:40]), {"weak": of(weak), "same": of(IMAGES[20:40])}, (0.2,)
    )
    got = run(evaluator)
    real, generated = (
        scores(
            {"image": x.reshape(-1, 3, 4, 1), "_index": np.arange(len(x), dtype=np.int32)},
            scale=0.2,
        )
        for x in (IMAGES[20:40], weak)
    )
    truth, both = np.arange(40) < 20, np.concatenate([real, generated])
    assert got["weak_0.2_auroc"] == pytest.approx(roc_auc_score(truth, both))
    assert got["weak_0.2_ap"] == pytest.approx(average_precision_score(truth, both))
    limit = got["0.2_threshold"]
    right = (np.mean(real > limit) + np.mean(generated <= limit)) / 2
    assert got["weak_0.2_accuracy"] == pytest.approx(right)
    assert got["same_0.2_auroc"] == pytest.approx(0.5)
    assert got["0.2_auroc"] == pytest.approx((got["weak_0.2_auroc"] + 0.5) / 2)
    assert got["weak_0.2_auroc"] > 0.8
    assert got["examples"] == 60


def test_sets_without_scores_and_negative_noise_are_refused():
    good, bad = data(image=IMAGES[:4]), data(image=np.full((4, 12), np.nan))
    with pytest.raises(DataError, match="made: no record with a finite score"):
        run(NoiseSensitivity(good, bad, {"g": good}))
    with pytest.raises(ValueError, match="scales"):
        NoiseSensitivity(good, good, {"g": good}, (-0.1,))
    with pytest.raises(ValueError, match="generated"):
        NoiseSensitivity(good, good, {})
