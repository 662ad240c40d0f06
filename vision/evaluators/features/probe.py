"""Probes on frozen features: linear classifiers and nearest neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.blocks.nearest import nearest
from vision.config.ranges import Finite, NonEmpty, NonNegative, Positive, Rate, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import finite, normalised
from vision.evaluators.labelled import Labelled, counts, labelled, number_of_classes, split
from vision.metrics.arrays import softmax_parts
from vision.probes.linear import FitError, LinearClassifier, choose_decay, fit_logistic
from vision.probes.ridge import prepare_ridge, signs
from vision.probes.sgd import fit_sgd


@dataclasses.dataclass(frozen=True)
@checked
class LinearProbe:
    """A logistic regression on the features of ``train``, measured on those of ``test``.

    The weight decay is the one of ``decays`` that is best on a tenth of ``train``, every tenth
    record; then all of ``train`` is fitted with it. ``test`` is read once, at the end. A
    constant factor scales the mean squared norm of the features to their dimension D, so that the
    same decays suit every tower.

    Yields ``top1`` and ``nll`` (nats) on ``test``, ``decay``, ``held_out_top1`` of that decay,
    ``train_top1``, ``examples`` (of ``test``), and, only where there are any, ``unlabelled`` and
    ``nonfinite`` (records of either that are left out of fitting; in ``test`` the latter count as
    wrong and make ``nll`` infinite) and ``absent_classes`` (of ``test``, that ``train`` lacks:
    their records can only be wrong). Then the figure ``decays``.

    Attributes:
      train: what is fitted.
      test: what is measured.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      decays: to choose from; of mean NLL + decay / 2 |W|^2.
    """

    train: EvaluationData
    test: EvaluationData
    output: str = "embedding"
    label: str = "label"
    decays: NonEmpty[tuple[Positive[float], ...]] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once.

        Raises:
          DataError: no records with labels.
          FitError: labels of one class only.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        train = labelled(predict, ctx, self.train, self.output, self.label)
        test = labelled(predict, ctx, self.test, self.output, self.label)
        classes = number_of_classes(self.train, train, test)
        factor = _factor(train.x)
        x, labels = train.x * factor, train.labels
        fit, held_out = split(train)
        accuracy = choose_decay(
            (x[fit], labels[fit]), (x[held_out], labels[held_out]), classes, self.decays
        )
        decay = max(accuracy, key=lambda decay_tried: accuracy[decay_tried])
        model = fit_logistic(x, labels, classes, decay)
        yield from _measured(model, factor, train, test)
        yield "decay", decay
        yield "held_out_top1", accuracy[decay]
        yield from _counted(train, test)
        yield "decays", _curve(accuracy, "weight decay")


@dataclasses.dataclass(frozen=True)
@checked
class RidgeProbe:
    """Least squares on the features of ``train``, to 1 for the class and -1 for the others.

    The few-shot regression of BiT and ViT, for any number of examples: in closed form, every
    feature divided by its standard deviation. The penalty is the one of ``decays`` that is best on
    every tenth record of ``train``; then all of it is fitted. Of equally good ones it is the
    largest. ``test`` is read once, at the end. Yields what ``LinearProbe`` does but ``nll``:
    the outputs are no probabilities.

    Attributes:
      train: what is fitted.
      test: what is measured.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      decays: to choose from; of mean squared error + decay |W|^2.
    """

    train: EvaluationData
    test: EvaluationData
    output: str = "embedding"
    label: str = "label"
    decays: NonEmpty[tuple[Positive[float], ...]] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once; errors as in ``LinearProbe.run``."""
        train = labelled(predict, ctx, self.train, self.output, self.label)
        test = labelled(predict, ctx, self.test, self.output, self.label)
        classes = number_of_classes(self.train, train, test)
        fit, held_out = split(train)
        prepared = prepare_ridge(train.x[fit], signs(train.labels[fit], classes), True)
        x, labels = train.x[held_out], train.labels[held_out]
        accuracy = {}
        for decay in sorted(self.decays, reverse=True):
            predicted = prepared.fit(decay).logits(x).argmax(1)
            accuracy[decay] = float(np.mean(predicted == labels))
        decay = max(accuracy, key=lambda decay_tried: accuracy[decay_tried])
        model = prepare_ridge(train.x, signs(train.labels, classes), True).fit(decay)
        for name, value in _measured(model, np.float32(1), train, test):
            if name != "nll":
                yield name, value
        yield "decay", decay
        yield "held_out_top1", accuracy[decay]
        yield from _counted(train, test)
        yield "decays", _curve(accuracy, "penalty")


@dataclasses.dataclass(frozen=True)
@checked
class SgdProbe:
    """A linear layer trained by minibatch SGD on the features of ``train``.

    The protocol of self-supervised learning, see ``vision.probes.sgd``: the learning rate is the
    one of ``rates`` that is best on every tenth record of ``train``, of equally good ones that of
    the lowest NLL there; then all of it is trained on with that one. ``test`` is read once,
    at the end. Features are scaled as in ``LinearProbe``. Yields what that does, with ``rate`` for
    ``decay`` and the figure ``rates``, and, only where there are any, ``diverged`` (rates whose
    weights were not finite).

    Attributes:
      train: what is fitted.
      test: what is measured.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      rates: to choose from.
      epochs: passes over ``train``.
      batch_size: records per update.
      momentum: Nesterov's, 0 or more and below 1.
      decay: weight decay.
      seed: of the order of the records.
    """

    train: EvaluationData
    test: EvaluationData
    output: str = "embedding"
    label: str = "label"
    rates: NonEmpty[tuple[Positive[float], ...]] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    epochs: Positive[int] = 10
    batch_size: Positive[int] = 256
    momentum: Rate = 0.9
    decay: NonNegative[float] = 0.0
    seed: int = 0

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once; errors as in ``LinearProbe.run``, and where all rates diverge."""
        train = labelled(predict, ctx, self.train, self.output, self.label)
        test = labelled(predict, ctx, self.test, self.output, self.label)
        classes = number_of_classes(self.train, train, test)
        factor = _factor(train.x)
        x, labels = train.x * factor, train.labels
        fit, held_out = split(train)
        rates = tuple(sorted(set(self.rates)))
        models = self._fit(x[fit], labels[fit], classes, rates)
        x_held, labels_held = x[held_out], labels[held_out]
        accuracy, losses = {}, {}
        for rate, model in zip(rates, models, strict=True):
            if model.converged:
                logits = model.logits(x_held)
                accuracy[rate] = float(np.mean(logits.argmax(1) == labels_held))
                losses[rate] = _nll(logits, labels_held)
        if not accuracy:
            raise FitError(f"SGD diverged with every one of rates={self.rates}: try smaller ones")
        rate = max(accuracy, key=lambda rate_tried: (accuracy[rate_tried], -losses[rate_tried]))
        (model,) = self._fit(x, labels, classes, (rate,))
        if not model.converged:
            raise FitError(f"SGD diverged with rate {rate} on all records: try smaller rates")
        yield from _measured(model, factor, train, test)
        yield "rate", rate
        yield "held_out_top1", accuracy[rate]
        yield from _counted(train, test)
        if diverged := len(rates) - len(accuracy):
            yield "diverged", diverged
        yield "rates", _curve(accuracy, "learning rate")

    def _fit(
        self, x: np.ndarray, labels: np.ndarray, classes: int, rates: tuple[float, ...]
    ) -> tuple[LinearClassifier, ...]:
        return fit_sgd(
            x,
            labels,
            classes,
            rates,
            epochs=self.epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            decay=self.decay,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True)
@checked
class NearestNeighbours:
    """k nearest neighbours by cosine, each of which votes with ``exp(cosine / temperature)``.

    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018. The
    search is exact. Equal votes go to the smaller label. Yields ``top1`` for the first of ``k``,
    ``top1_<k>`` for each of them, ``examples``, and, only where there are any, ``unlabelled`` and
    ``nonfinite`` as ``LinearProbe`` does, ``zero_features`` (records of either whose features are
    zero and have no direction: left out), and ``in_train``: records of ``test`` whose features are
    those of a record of ``train``, which is then their own nearest neighbour. All of them if both
    are the same data.

    Attributes:
      train: the neighbours.
      test: what is measured.
      k: numbers of neighbours; more than there are count as all.
      temperature: positive.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    train: EvaluationData
    test: EvaluationData
    k: NonEmpty[tuple[Positive[int], ...]] = (20, 10, 1)
    temperature: Positive[Finite] = 0.07
    output: str = "embedding"
    label: str = "label"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once; errors as in ``LinearProbe.run``."""
        train = labelled(predict, ctx, self.train, self.output, self.label)
        test = labelled(predict, ctx, self.test, self.output, self.label)
        classes = number_of_classes(self.train, train, test)
        (train, train_zero), (test, test_zero) = (
            _nonzero(train, self.train),
            _nonzero(test, self.test),
        )
        most = min(max(self.k), len(train.x))
        queries, gallery = normalised(test.x), normalised(train.x)
        cosine, places = nearest(queries, gallery, most)
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
        yield from _counted(train, test)
        if zero := train_zero + test_zero:
            yield "zero_features", zero
        if copies := int((queries == gallery[places[:, 0]]).all(1).sum()):
            yield "in_train", copies


def _nonzero(rows: Labelled, data: EvaluationData) -> tuple[Labelled, int]:
    """The records whose features have a direction, and how many have none.

    Raises:
      DataError: all features are zero.
    """
    unit = normalised(rows.x)
    keep = finite(unit) & unit.any(1)
    if not keep.any():
        raise DataError(f"{data.source.info.name}: the features of all records are zero")
    kept = dataclasses.replace(rows, x=rows.x[keep], labels=rows.labels[keep])
    return kept, int((~keep).sum())


def _factor(x: np.ndarray) -> np.float32:
    """The factor that scales the mean squared norm of features (N, D) to D."""
    length = np.mean(np.sum(np.square(x, dtype=np.float64), 1))
    return np.float32(np.sqrt(x.shape[1] / length) if length > 0 else 1)


def _measured(
    model: LinearClassifier, factor: np.float32, train: Labelled, test: Labelled
) -> Iterator[tuple[str, float]]:
    logits = model.logits(test.x * factor)
    nll = _nll(logits, test.labels)
    count = len(logits) + test.nonfinite
    yield "top1", float(np.sum(logits.argmax(1) == test.labels)) / count
    yield "nll", nll / count if not test.nonfinite else float("inf")
    yield "train_top1", float(np.mean(model.logits(train.x * factor).argmax(1) == train.labels))


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Summed over rows, in nats."""
    top, log_normaliser = softmax_parts(logits)
    target_logits = logits[np.arange(len(logits)), labels].astype(np.float64)
    return float(np.sum(log_normaliser - (target_logits - top)))


def _counted(train: Labelled, test: Labelled) -> Iterator[tuple[str, float]]:
    yield from counts(len(test.x) + test.nonfinite, train, test)


def _curve(accuracy: dict[float, float], name: str) -> Curve:
    points = sorted(accuracy.items())
    x = np.log10([setting for setting, _ in points])
    line = Line("held out", x, np.asarray([top1 for _, top1 in points]))
    return Curve((line,), f"log10 of the {name}", "top-1 on the held-out tenth")
