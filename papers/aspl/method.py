"""Active self-paced learning: pseudo-labels for confident records, queries for uncertain ones.

Few of many images have labels. One linear SVM per class is fitted on features of the labelled
records, and each round treats the others in two ways:

  self-paced  the best class j of an image becomes its pseudo-label, with weight v_i = 1, where
              C sum_k hinge(w_k; x_i, y_ik)^2 < lambda_j and at most one SVM is positive
              (w_k x_i + b_k > 0); y_ik is 1 for j and -1 for the others. Else v_i = 0.
  active      an oracle labels a fixed number of images for which no SVM or several are positive,
              in order of increasing margin between the two best classes. These labels are kept
              (v_i = 1 from then on) and replace pseudo-labels, which are recomputed every round.

lambda_j, the pace, is multiplied each round by 1 + growth times the accuracy on the annotated
images of class j. With lambda = 0 this is active learning, without queries self-paced learning.
Every few rounds the network is fine-tuned on both kinds of labels and the features are recomputed:
these are stages of the config, and ``papers.aspl.rounds.Rounds`` is the job between them.

Lin et al., Active Self-Paced Learning for Cost-Effective and Progressive Face Identification, 2017.
Headline: the accuracy of active learning on CACD and CASIA-WebFace with markedly fewer labels.
Differences: the hinge is squared, as in ``vision.probes.svm``; weights are 0 or 1; the initial
pace, C and the number of queries are not known from the paper's card and are ours; digits instead
of faces.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from papers.aspl.oracle import Oracle
from vision.config.ranges import NonNegative, Positive, checked
from vision.probes.linear import LinearClassifier
from vision.probes.svm import fit_svm


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labels of N records; -1 where there is none.

    Attributes:
      asked: int64 (N,), labels from the oracle.
      guessed: int64 (N,), pseudo-labels; -1 where the oracle gave a label.
      pace: float64 (K,), lambda of each class.
      rounds: number of completed rounds.
    """

    asked: np.ndarray
    guessed: np.ndarray
    pace: np.ndarray
    rounds: int = 0

    @property
    def known(self) -> np.ndarray:
        """int64 (N,): oracle labels and pseudo-labels."""
        return np.where(self.asked >= 0, self.asked, self.guessed)


@dataclasses.dataclass(frozen=True)
@checked
class SelfPaced:
    """Active self-paced learning on frozen features.

    Attributes:
      queries: oracle labels per round; 0 is self-paced learning.
      pace: initial lambda of every class; 0 is active learning.
      growth: relative growth of lambda in a round at 100 % accuracy on annotated images.
      c: of the SVMs, for features whose mean squared length is 1.
      choose: ``doubtful`` or ``random``: which records the oracle labels.
      seed: of random choices.
    """

    queries: NonNegative[int] = 10
    pace: NonNegative[float] = 1.0
    growth: NonNegative[float] = 0.2
    c: Positive[float] = 10.0
    choose: Literal["doubtful", "random"] = "doubtful"
    seed: int = 0

    def begin(self, oracle: Oracle, first: np.ndarray, count: int, num_classes: int) -> Labels:
        """Labels before the first round: oracle labels of records ``first`` (n,) of ``count``."""
        asked = np.full(count, -1, np.int64)
        asked[first] = oracle.label(first)
        return Labels(asked, np.full(count, -1, np.int64), np.full(num_classes, self.pace))

    def fit(self, x: np.ndarray, labels: Labels) -> LinearClassifier:
        """One-vs-rest SVMs of features (N, D), fitted on all labelled records."""
        labelled = labels.known >= 0
        return fit_svm(
            x[labelled], labels.known[labelled], len(labels.pace), self.c, tolerance=1e-4
        )

    def round(self, x: np.ndarray, labels: Labels, oracle: Oracle) -> Labels:
        """The labels after a round with features (N, D)."""
        scores = self.fit(x, labels).logits(x)
        asked = labels.asked.copy()
        ids = self._queries(scores, labels)
        if len(ids):
            asked[ids] = oracle.label(ids)
        guessed = np.where(asked >= 0, -1, self.guesses(scores, labels.pace))
        correct = scores.argmax(1) == labels.asked
        annotated, recognised = (
            np.bincount(labels.asked[rows], minlength=len(labels.pace))
            for rows in (labels.asked >= 0, correct)
        )
        pace = labels.pace * (1 + self.growth * recognised / np.maximum(annotated, 1))
        return Labels(asked, guessed, pace, labels.rounds + 1)

    def guesses(self, scores: np.ndarray, pace: np.ndarray) -> np.ndarray:
        """int64 (N,): pseudo-labels of all records whose loss is below the pace, else -1."""
        best = scores.argmax(1)
        sign = np.where(np.arange(scores.shape[1]) == best[:, None], 1.0, -1.0)
        losses = self.c * np.square(np.maximum(1 - sign * scores, 0)).sum(1)
        confident = (losses < pace[best]) & ((scores > 0).sum(1) <= 1)
        return np.where(confident, best, -1)

    def _queries(self, scores: np.ndarray, labels: Labels) -> np.ndarray:
        unlabelled = np.flatnonzero(labels.asked < 0)
        if self.choose == "random":
            rng = np.random.default_rng([self.seed, labels.rounds])
            return rng.permutation(unlabelled)[: self.queries]
        top2 = np.sort(scores[unlabelled], 1)[:, -2:]
        single_positive = (scores[unlabelled] > 0).sum(1) == 1
        order = np.lexsort((top2[:, 1] - top2[:, 0], single_positive))
        return unlabelled[order][: self.queries]
