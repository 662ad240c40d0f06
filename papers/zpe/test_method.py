"""Scores of templates: what fits every image does not count, and equal weights are the ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from papers.zpe.evaluator import WeightedZeroShot
from papers.zpe.method import selected, template_scores, weights
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.data.prompts import prompts
from vision.evaluators.image_text.zero_shot import ZeroShot

RNG = np.random.default_rng(0)
NAMES = ("owl", "cat", "newt")
TEMPLATES = ("a {}", "the {} again", "no {} at all")


def bank() -> np.ndarray:
    return texts_of(prompts(TEMPLATES, NAMES)).reshape(3, 3, -1).swapaxes(0, 1)


def pictures(count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Images near the first template's sentences, unit vectors."""
    label = RNG.integers(0, 3, count).astype(np.int32)
    x = bank()[0][label] + noise * RNG.normal(size=(count, 12))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label


X, LABEL = pictures(60, 0.3)
NEUTRAL, _ = pictures(40, 2.0)


def test_scores_are_the_papers():
    logits, before = (30 * np.einsum("nd,pkd->npk", x, bank()) for x in (X, NEUTRAL))
    corrected = logits - (logits.mean(0) + before.mean(0)) / 2
    expected = corrected.max(2).mean(0)
    np.testing.assert_allclose(template_scores(X, bank(), NEUTRAL, 30.0), expected, rtol=1e-6)
    naive = logits.max(2).mean(0)
    np.testing.assert_allclose(template_scores(X, bank(), None, 30.0), naive, rtol=1e-6)
    assert expected.argmax() == 0


def test_what_a_text_has_in_common_with_every_image_changes_no_score():
    """A constant per template and class in L of both kinds of images: one more dimension."""
    constant = RNG.normal(size=(3, 3, 1))
    texts = np.concatenate([bank(), constant], -1)
    images, neutral = (np.pad(x, ((0, 0), (0, 1)), constant_values=1) for x in (X, NEUTRAL))
    plain, shifted = template_scores(X, bank(), NEUTRAL), template_scores(images, texts, neutral)
    np.testing.assert_allclose(shifted, plain, rtol=1e-6)
    naive = template_scores(images, texts, None) - template_scores(X, bank(), None)
    assert np.abs(naive).min() > 1


def test_weights_sum_to_one_and_follow_the_scores():
    by_rule = weights(np.array([2.0, 1.0, -3.0]))
    for weight in by_rule.values():
        assert weight.sum() == pytest.approx(1)
    np.testing.assert_allclose(by_rule["equal"], 1 / 3)
    np.testing.assert_allclose(by_rule["score"], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(by_rule["power"], np.array([1024, 1, 0]) / 1025)
    assert by_rule["softmax"][1] / by_rule["softmax"][0] == pytest.approx(np.exp(-1))
    np.testing.assert_allclose(weights(np.array([-1.0, -2.0]))["score"], 0.5)
    scores = np.array([0.0, 1.0, 2.0, 3.0, 9.0])  # median 2, deviation 1
    assert selected(scores, 2.0).tolist() == [False, False, False, False, True]
    assert selected(scores, 0.5).tolist() == [False, False, False, True, True]
    assert selected(np.ones(3), 2.0).all()


def asked(**more: Any) -> WeightedZeroShot:
    fields: dict[str, Any] = {
        "data": data(image=X, label=LABEL, class_names=NAMES),
        "neutral": data(image=NEUTRAL),
        "tokenizer": TOKENIZER,
        "templates": TEMPLATES,
    }
    return WeightedZeroShot(**{**fields, **more})


@pytest.mark.parametrize("devices", [1, 8])
def test_equal_weights_are_the_plain_ensemble(devices: int):
    got = run(asked(unit=True, text_batch=16), devices)
    plain = ZeroShot(asked().data, TOKENIZER, templates=TEMPLATES, text_batch=16, mistakes=0)
    assert got["equal_top1"] == run(plain, devices)["top1"]
    averaged = np.einsum("nd,pkd->npk", X, bank()).mean(1)
    got = run(asked(text_batch=16), devices)
    assert got["equal_top1"] == np.mean(averaged.argmax(1) == LABEL)
    assert 1 / 3 < got["equal_top1"] < 1
    alone = [np.mean((X @ texts.T).argmax(1) == LABEL) for texts in bank()]
    assert got["best_template_top1"] == max(alone)
    assert (got["templates"], got["examples"]) == (3, 60)


def test_one_template_is_all_there_is():
    got = run(asked(templates=("a {}",)))
    assert len({got[name] for name in got if name.endswith("_top1")}) == 1
    assert got["selected"] == 1
    unlabelled = np.where(np.arange(60) < 5, -1, LABEL).astype(np.int32)
    got = run(asked(data=data(image=X, label=unlabelled, class_names=NAMES)))
    assert (got["examples"], got["unlabelled"]) == (55, 5)
    with pytest.raises(ValueError, match="scale is 0"):
        asked(scale=0.0)
