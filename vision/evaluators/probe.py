"""How much of a class frozen features tell: by a linear classifier, and by their neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.adapt.linear import choose_decay, fit_logistic
from vision.blocks.nearest import nearest
from vision.core.evaluator import EvalContext, EvalData, Predict
from vision.core.figures import Curve, Figure, Line
from vision.data.source import DataError
from vision.evaluators.embeddings import Rows, embed, finite, normalised


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A logistic regression on the features of ``train``, measured on those of ``test``.

    The weight decay is the one of ``decays`` that is best on a tenth of ``train``, every tenth
    record; then all of ``train`` is fitted with it. ``test`` is looked at once, at the end. A
    constant factor takes the mean squared length of the features to their number, so that the
    same decays suit every tower.

    Yields ``top1`` and ``nll`` (nats) on ``test``, ``decay``, ``held_out_top1`` of that decay,
    ``train_top1``, ``examples`` (of ``test``), and, only where there are any, ``unlabelled`` and
    ``nonfinite`` (records of either that are left out of fitting; in ``test`` the latter count as
    wrong and make ``nll`` infinite). Then the figure ``decays``.

    Attributes:
      train: what is fitted.
      test: what is measured.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      decays: to choose from; of mean NLL + decay / 2 |W|^2.
      every: distance between evaluations while training; None for one at the end.
    """

    train: EvalData
    test: EvalData
    output: str = "embedding"
    label: str = "label"
    decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    every: str | None = None

    def __post_init__(self) -> None:
        if not self.decays or min(self.decays) <= 0:
            raise ValueError(f"decays={self.decays}: at least one, all positive")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once.

        Raises:
          DataError: no records with labels.
          FitError: labels of one class only.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        train = _labelled(predict, ctx, self.train, self.output, self.label)
        test = _labelled(predict, ctx, self.test, self.output, self.label)
        classes = _classes(self.train, train, test)
        factor = np.sqrt(train.x.shape[1] / np.mean(np.sum(train.x.astype(np.float64) ** 2, 1)))
        x, labels = train.x * np.float32(factor), train.labels
        last = np.arange(len(x)) % 10 == 9
        tried = choose_decay(
            (x[~last], labels[~last]), (x[last], labels[last]), classes, self.decays
        )
        decay = max(tried, key=lambda each: tried[each])
        model = fit_logistic(x, labels, classes, decay)
        logits = model.logits(test.x * np.float32(factor)).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        right = logits[np.arange(len(logits)), test.labels]
        nll = float(np.sum(np.log(np.exp(logits).sum(1)) - right))
        count = len(logits) + test.nonfinite
        yield "top1", float(np.sum(logits.argmax(1) == test.labels)) / count
        yield "nll", nll / count if not test.nonfinite else float("inf")
        yield "decay", decay
        yield "held_out_top1", tried[decay]
        yield "train_top1", float(np.mean(model.logits(x).argmax(1) == labels))
        yield from _counts(count, train, test)
        points = sorted(tried.items())
        line = Line(
            "held out",
            np.log10([decay for decay, _ in points]),
            np.asarray([accuracy for _, accuracy in points]),
        )
        yield "decays", Curve((line,), "log10 of the weight decay", "top-1 on the held-out tenth")


@dataclasses.dataclass(frozen=True)
class NearestNeighbours:
    """The class of the most similar records: each votes with ``exp(cosine / temperature)``.

    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018. The
    search is exact. Equal votes go to the smaller label. Yields ``top1`` for the first of ``k``,
    ``top1_<k>`` for each of them, ``examples``, and, only where there are any, ``unlabelled`` and
    ``nonfinite`` as ``LinearProbe`` does.

    Attributes:
      train: who votes.
      test: what is measured.
      k: numbers of neighbours; more than there are count as all.
      temperature: positive.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      every: distance between evaluations while training; None for one at the end.
    """

    train: EvalData
    test: EvalData
    k: tuple[int, ...] = (20, 10, 1)
    temperature: float = 0.07
    output: str = "embedding"
    label: str = "label"
    every: str | None = None

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k={self.k}: at least one, all positive")
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature={self.temperature}: must be positive and finite")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once; errors as in ``LinearProbe.run``."""
        train = _labelled(predict, ctx, self.train, self.output, self.label)
        test = _labelled(predict, ctx, self.test, self.output, self.label)
        classes = _classes(self.train, train, test)
        most = min(max(self.k), len(train.x))
        cosine, places = nearest(normalised(test.x), normalised(train.x), most)
        voters = train.labels[places]
        count = len(test.x) + test.nonfinite
        for i, k in enumerate(self.k):
            votes = np.zeros((len(test.x), classes))
            rows = np.arange(len(test.x))
            for j in range(min(k, most)):
                # Relative to the nearest, which changes no order and cannot overflow.
                vote = np.exp((cosine[:, j] - cosine[:, 0]) / self.temperature)
                votes[rows, voters[:, j]] += vote
            top1 = float(np.sum(votes.argmax(1) == test.labels)) / count
            if i == 0:
                yield "top1", top1
            yield f"top1_{k}", top1
        yield from _counts(count, train, test)


@dataclasses.dataclass(frozen=True, eq=False)
class _Labelled:
    """Features (N, D) with labels (N,), and how many records were left out."""

    x: np.ndarray
    labels: np.ndarray
    unlabelled: int
    nonfinite: int


def _labelled(
    predict: Predict, ctx: EvalContext, data: EvalData, output: str, label: str
) -> _Labelled:
    rows: Rows = embed(predict, ctx, data, (output,), (label,))
    x, labels = rows[output], rows[label]
    if x.ndim != 2 or labels.ndim != 1:
        raise ValueError(
            f"a probe needs features (N, D) and labels (N,); {output} is {x.shape} and {label} "
            f"{labels.shape} for {data.source.info.name}"
        )
    known = labels >= 0
    good = finite(x)
    if not (known & good).any():
        raise DataError(f"{data.source.info.name}: no record with a label and finite {output}")
    return _Labelled(
        x[known & good],
        labels[known & good].astype(np.int64),
        int((~known).sum()),
        int((known & ~good).sum()),
    )


def _classes(data: EvalData, train: _Labelled, test: _Labelled) -> int:
    return max(len(data.source.info.class_names), *(int(x.labels.max()) + 1 for x in (train, test)))


def _counts(examples: int, train: _Labelled, test: _Labelled) -> Iterator[tuple[str, float]]:
    yield "examples", examples
    for name in ("unlabelled", "nonfinite"):
        if count := getattr(train, name) + getattr(test, name):
            yield name, count
