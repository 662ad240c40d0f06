"""Asking and guessing: without pace active learning, without queries self-paced, and overruling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from papers.aspl.method import Labels, SelfPaced
from papers.aspl.oracle import HeldBack
from papers.aspl.rounds import initial_records, scaled
from vision.probes.svm import fit_svm

RNG = np.random.default_rng(0)
TRUTH = np.repeat(np.arange(4), 30)
CENTRES = RNG.normal(size=(4, 6))
X = scaled(CENTRES[TRUTH] + 0.7 * RNG.normal(size=(120, 6)))[0]
START = initial_records(TRUTH, 2, seed=0)


class Asked:
    """Tells the truth, and remembers what it was asked."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def label(self, ids: np.ndarray) -> np.ndarray:
        self.ids += ids.tolist()
        return TRUTH[ids]


def after(loop: SelfPaced, rounds: int, oracle: Any) -> Labels:
    labels = loop.begin(oracle, START, len(X), 4)
    for _ in range(rounds):
        labels = loop.round(X, labels, oracle)
    return labels


def test_without_pace_it_is_active_learning():
    oracle = Asked()
    labels = after(SelfPaced(queries=7, pace=0.0, c=1.0), 3, oracle)
    assert (labels.guessed == -1).all()
    assert (labels.pace == 0).all()
    known = START.tolist()
    for _ in range(3):
        model = fit_svm(X[known], TRUTH[known], 4, 1.0, tolerance=1e-4)
        scores = model.logits(X)
        doubt = []
        for i in set(range(120)) - set(known):
            second, first = np.sort(scores[i])[-2:]
            doubt.append(((scores[i] > 0).sum() == 1, first - second, i))
        known += [i for _, _, i in sorted(doubt)[:7]]
    assert sorted(oracle.ids) == sorted(known)
    assert set(np.flatnonzero(labels.asked >= 0)) == set(known)


def test_without_queries_it_is_self_paced_learning():
    oracle = Asked()
    labels = after(SelfPaced(queries=0, pace=0.5, c=1.0), 3, oracle)
    assert oracle.ids == START.tolist()
    guessed = labels.guessed >= 0
    assert 10 < guessed.sum() < 90
    assert np.mean(labels.guessed[guessed] == TRUTH[guessed]) > 0.8
    assert not (guessed & (labels.asked >= 0)).any()
    more = after(SelfPaced(queries=0, pace=0.5, growth=3.0, c=1.0), 3, Asked())
    assert (more.pace >= labels.pace).all()
    assert (more.guessed >= 0).sum() > guessed.sum()


def test_only_sure_and_uncontested_guesses_count():
    loop = SelfPaced(c=1.0)
    scores = np.array(
        [
            [2.0, -2.0, -2.0],  # no loss
            [0.5, -1.0, -1.0],  # a loss of 0.25
            [2.0, 0.1, -2.0],  # claimed twice
            [-0.5, -1.0, -1.0],  # claimed by none: a loss of 2.25
        ]
    )
    assert loop.guesses(scores, np.full(3, 0.3)).tolist() == [0, 0, -1, -1]
    assert loop.guesses(scores, np.full(3, 9.0)).tolist() == [0, 0, -1, 0]
    assert loop.guesses(scores, np.array([0.2, 9.0, 9.0])).tolist() == [0, -1, -1, -1]
    assert loop.guesses(scores, np.zeros(3)).tolist() == [-1] * 4


def test_the_oracle_overrules_a_guess_for_ever():
    loop = SelfPaced(queries=5, pace=1e9, c=1.0, choose="random")
    labels = after(loop, 1, Asked())
    before = labels.guessed.copy()
    again = loop.round(X, labels, Asked())
    new = np.flatnonzero((again.asked >= 0) & (labels.asked < 0))
    assert len(new) == 5
    assert (before[new] >= 0).any()
    assert (again.guessed[new] == -1).all()
    assert (again.known[new] == TRUTH[new]).all()
    last = loop.round(X, again, Asked())
    assert (last.known[new] == TRUTH[new]).all()


def test_an_oracle_that_errs_repeats_itself():
    ids = np.arange(120)
    oracle = HeldBack(TRUTH, 4, noise=0.25, seed=3)
    labels = oracle.label(ids)
    np.testing.assert_array_equal(oracle.label(ids[::-1])[::-1], labels)
    assert 0.1 < np.mean(labels != TRUTH) < 0.4
    assert set(labels) == {0, 1, 2, 3}
    np.testing.assert_array_equal(HeldBack(TRUTH, 4).label(ids), TRUTH)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="doubtful"):
        SelfPaced(choose="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="queries is -1"):
        SelfPaced(queries=-1)
