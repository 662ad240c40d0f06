"""Vote counts of galaxies: an op that counts answers, and an evaluator of predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.config.ranges import NonNegative, checked
from vision.data.ops.base import Example
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed, finite


@dataclasses.dataclass(frozen=True)
@checked
class Tally:
    """An op: answers of raters (R,), or columns of counts, as ``votes`` int32 (answers,).

    Of the raters the first ``n`` are counted, between ``fewest`` and ``most``; n is a hash of their
    answers, so that an example always has the same votes.

    Attributes:
      answers: number of possible answers of raters, which are ``votes`` int (R,) of an example.
      fewest, most: range of the number of counted raters.
      columns: features with the count of each answer, in order.
    """

    answers: NonNegative[int] = 0
    fewest: NonNegative[int] = 5
    most: int = 40
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.columns) == bool(self.answers):
            raise ValueError("give columns, or answers of raters, and not both")
        if self.fewest > self.most:
            raise ValueError(f"fewest={self.fewest}, most={self.most}: fewest <= most")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.columns:
            counts = np.asarray([example[name] for name in self.columns])
            others = {name: x for name, x in example.items() if name not in self.columns}
            return {**others, "votes": counts.astype(np.int32)}
        answers = np.asarray(example["votes"])
        hashed = int(answers.astype(np.int64) @ (np.arange(len(answers)) * 7919 + 1))
        n = self.fewest + hashed % (min(self.most, len(answers)) - self.fewest + 1)
        counts = np.bincount(answers[:n], minlength=self.answers)
        return {**example, "votes": counts.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class VoteLikelihood:
    """An evaluator of predicted vote counts.

    Yields ``nll`` (nats per image), ``share_error`` (mean absolute error of vote shares over the
    answers of questions with votes), ``majority`` (share of questions whose majority answer is
    predicted), ``examples``, and, where there are any, ``nonfinite`` (left out).

    Attributes:
      data: batches with ``votes``.
      questions: as of ``Votes``.
    """

    data: EvaluationData
    questions: tuple[int, ...]

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        rows = embed(predict, ctx, self.data, ("vote_nll", "shares"), ("votes",))
        valid = np.isfinite(rows["vote_nll"]) & finite(rows["shares"])
        votes, shares = rows["votes"][valid].astype(np.float64), rows["shares"][valid]
        errors, correct, start = [], [], 0
        for size in self.questions:
            k, p = votes[:, start : start + size], shares[:, start : start + size]
            has_votes = k.sum(1) > 0
            true_shares = k[has_votes] / k[has_votes].sum(1, keepdims=True)
            errors.append(np.abs(true_shares - p[has_votes]).ravel())
            correct.append(k[has_votes].argmax(1) == p[has_votes].argmax(1))
            start += size
        yield "nll", float(rows["vote_nll"][valid].mean(dtype=np.float64))
        yield "share_error", float(np.concatenate(errors).mean())
        yield "majority", float(np.concatenate(correct).mean())
        yield "examples", int(valid.sum())
        if dropped := int((~valid).sum()):
            yield "nonfinite", dropped
