"""Active self-paced learning: the surest guesses teach, and a person is asked about the doubtful.

Of many images few have labels. One linear SVM per class is fitted on features to what is known,
and a round does two opposite things with what is not:

  self-paced  the best class j of an image becomes its pseudo-label, with weight v_i = 1, where
              C sum_k hinge(w_k; x_i, y_ik)^2 < lambda_j and at most one class claims it
              (w_k x_i + b_k > 0); y_ik is 1 for j and -1 for the others. Else v_i = 0.
  active      an oracle labels a fixed number of images of which none or several classes claim
              each, those with the two best classes nearest to each other first. Its labels stay
              (v_i = 1 for ever), also over a pseudo-label; pseudo-labels are made anew each round.

lambda_j, the pace, grows by a share of itself times the accuracy on the annotated images of the
class. With lambda = 0 this is active learning, without queries self-paced learning. Every few
rounds the network is fine-tuned on both kinds of labels and its features are computed again: these
are stages of the config, between which ``Rounds`` is a job.

Lin et al., Active Self-Paced Learning for Cost-Effective and Progressive Face Identification, 2017.
Headline: the accuracy of active learning on CACD and CASIA-WebFace with markedly fewer labels. Here
the hinge is squared, as in ``vision.probes.svm``, weights are 0 or 1, and the pace at first, C and
the number of queries, which the card does not know, are ours. Digits stand for faces.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from vision.data.pipeline import EvalData
from vision.metrics.arrays import check_choice
from vision.probes.linear import LinearClassifier
from vision.probes.svm import fit_svm
from vision.run.restore import load_run
from vision.scenario.features import features_of


class Oracle(Protocol):
    """Who can tell labels: a person, or offline the truth that was held back."""

    def label(self, ids: np.ndarray) -> np.ndarray:
        """int (n,) of records ``ids`` (n,); the same again for the same."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HeldBack:
    """The truth, with a share of errors.

    Attributes:
      truth: int (N,).
      num_classes: K.
      noise: share of the records for which another class is told, all as likely.
      seed: of the errors.
    """

    truth: np.ndarray
    num_classes: int
    noise: float = 0.0
    seed: int = 0

    def label(self, ids: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(self.seed)
        wrong = draw.random(len(self.truth)) < self.noise
        other = (self.truth + draw.integers(1, self.num_classes, len(wrong))) % self.num_classes
        return np.where(wrong, other, self.truth)[ids]


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """What is known of N records: -1 where nothing.

    Attributes:
      asked: int64 (N,), what the oracle said.
      guessed: int64 (N,), pseudo-labels; -1 where the oracle was asked.
      pace: float64 (K,), lambda of each class.
      rounds: that have been.
    """

    asked: np.ndarray
    guessed: np.ndarray
    pace: np.ndarray
    rounds: int = 0

    @property
    def known(self) -> np.ndarray:
        """int64 (N,): both kinds."""
        return np.where(self.asked >= 0, self.asked, self.guessed)


@dataclasses.dataclass(frozen=True)
class SelfPaced:
    """One round after the other, on frozen features.

    Attributes:
      queries: labels that the oracle gives in a round; 0 is self-paced learning.
      pace: lambda of every class at first; 0 is active learning.
      growth: of lambda in a round, as a share, where all annotated images are named right.
      c: of the SVMs, for features whose mean squared length is 1.
      choose: ``doubtful`` or ``random``: what the oracle is asked.
      seed: of random choices.
    """

    queries: int = 10
    pace: float = 1.0
    growth: float = 0.2
    c: float = 10.0
    choose: Literal["doubtful", "random"] = "doubtful"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("choose", self.choose, ("doubtful", "random"))
        if self.queries < 0 or min(self.pace, self.growth) < 0 or not self.c > 0:
            raise ValueError("queries, pace, growth: 0 or more; c: positive")

    def begin(self, oracle: Oracle, first: np.ndarray, count: int, num_classes: int) -> Labels:
        """The labels before the first round: those of records ``first`` (n,) of ``count``."""
        asked = np.full(count, -1, np.int64)
        asked[first] = oracle.label(first)
        return Labels(asked, np.full(count, -1, np.int64), np.full(num_classes, self.pace))

    def fit(self, x: np.ndarray, labels: Labels) -> LinearClassifier:
        """The SVMs of features (N, D) with all that is known of them."""
        there = labels.known >= 0
        return fit_svm(x[there], labels.known[there], len(labels.pace), self.c, tolerance=1e-4)

    def round(self, x: np.ndarray, labels: Labels, oracle: Oracle) -> Labels:
        """The labels after a round with features (N, D)."""
        scores = self.fit(x, labels).logits(x)
        asked = labels.asked.copy()
        ids = self._queries(scores, labels)
        if len(ids):
            asked[ids] = oracle.label(ids)
        guessed = np.where(asked >= 0, -1, self.guesses(scores, labels.pace))
        right = scores.argmax(1) == labels.asked
        annotated, named = (
            np.bincount(labels.asked[rows], minlength=len(labels.pace))
            for rows in (labels.asked >= 0, right)
        )
        pace = labels.pace * (1 + self.growth * named / np.maximum(annotated, 1))
        return Labels(asked, guessed, pace, labels.rounds + 1)

    def guesses(self, scores: np.ndarray, pace: np.ndarray) -> np.ndarray:
        """int64 (N,): pseudo-labels of all records whose loss is below the pace, else -1."""
        best = scores.argmax(1)
        sign = np.where(np.arange(scores.shape[1]) == best[:, None], 1.0, -1.0)
        losses = self.c * np.square(np.maximum(1 - sign * scores, 0)).sum(1)
        sure = (losses < pace[best]) & ((scores > 0).sum(1) <= 1)
        return np.where(sure, best, -1)

    def _queries(self, scores: np.ndarray, labels: Labels) -> np.ndarray:
        open_ = np.flatnonzero(labels.asked < 0)
        if self.choose == "random":
            draw = np.random.default_rng([self.seed, labels.rounds])
            return draw.permutation(open_)[: self.queries]
        two = np.sort(scores[open_], 1)[:, -2:]
        claimed_once = (scores[open_] > 0).sum(1) == 1
        order = np.lexsort((two[:, 1] - two[:, 0], claimed_once))
        return open_[order][: self.queries]


def scaled(x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Features (N, D) of mean 0 and mean squared length 1, and others moved and scaled alike."""
    centre = x.mean(0, dtype=np.float64)
    size = np.sqrt(np.mean(np.sum((x - centre) ** 2, 1)))
    return [((each - centre) / max(size, 1e-12)).astype(np.float32) for each in (x, *others)]


def one_of_each(truth: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Records to begin with, int64: ``each`` of every class."""
    draw = np.random.default_rng(seed)
    rows = [np.flatnonzero(truth == c) for c in np.unique(truth)]
    return np.concatenate([draw.choice(mine, each, replace=False) for mine in rows])


@dataclasses.dataclass(frozen=True)
class Rounds:
    """Rounds on the features of a run.

    Writes ``label.npy`` int32 (N,), both kinds of labels, -1 for none; ``keys.txt``, the records
    that have one; ``labels.npz``, what ``Labels`` has; and ``rounds.json``, a row per round.

    Attributes:
      run_of: folder of the run that makes the features.
      data: all training records in their order, with labels that only the oracle looks at.
      test: records to measure the SVMs on.
      loop: what a round is.
      rounds: how many.
      first: records of each class whose label is known at first.
      earlier: folder of the rounds before; empty for none.
      noise: share of the oracle's answers that are wrong.
      output: name of the features (N, D) that ``predict`` gives.
    """

    run_of: str
    data: EvalData
    test: EvalData
    loop: SelfPaced = SelfPaced()
    rounds: int = 3
    first: int = 1
    earlier: str = ""
    noise: float = 0.0
    output: str = "embedding"

    def run(self, folder: Path) -> dict[str, float]:
        run = load_run(Path(self.run_of))
        train, test = (
            features_of(run, data, (self.output,), ("label",)) for data in (self.data, self.test)
        )
        x, y = scaled(
            *(rows[self.output].reshape(len(rows["label"]), -1) for rows in (train, test))
        )
        truth, classes = train["label"].astype(np.int64), len(self.data.source.info.class_names)
        oracle = HeldBack(truth, classes, self.noise, self.loop.seed)
        if self.earlier:
            with np.load(Path(self.earlier) / "labels.npz", allow_pickle=False) as kept:
                labels = Labels(kept["asked"], kept["guessed"], kept["pace"], int(kept["rounds"]))
        else:
            start = one_of_each(truth, self.first, self.loop.seed)
            labels = self.loop.begin(oracle, start, len(truth), classes)
        rows = []
        for _ in range(self.rounds):
            labels = self.loop.round(x, labels, oracle)
            said = self.loop.fit(x, labels).logits(y).argmax(1)
            guessed = labels.guessed >= 0
            right = float((labels.guessed == truth)[guessed].mean()) if guessed.any() else None
            row = {"asked": int((labels.asked >= 0).sum()), "guessed": int(guessed.sum())}
            rows.append(
                {**row, "guessed_right": right, "top1": float(np.mean(said == test["label"]))}
            )
        (folder / "rounds.json").write_text(json.dumps(rows, indent=2) + "\n")
        np.savez(folder / "labels.npz", **dataclasses.asdict(labels))
        np.save(folder / "label.npy", labels.known.astype(np.int32))
        keys = [self.data.source.key(int(i)) for i in train["_index"][labels.known >= 0]]
        (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys))
        return {name: float(value) for name, value in rows[-1].items() if value is not None}
