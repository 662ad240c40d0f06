"""Evaluation of TEEN: few-shot class-incremental sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from papers.teen.method import calibrated
from vision.config.ranges import Fraction, NonEmpty, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import normalised
from vision.evaluators.labelled import labelled
from vision.probes.class_means import closeness, empty_means, update


@dataclasses.dataclass(frozen=True)
@checked
class FewShotSessions:
    """Few-shot class-incremental evaluation: a base session, then sessions of few-shot classes.

    All metrics are means over ``draws`` of the shots. Yields ``session_0`` (base classes alone)
    .. ``session_S``, the accuracy on the classes so far; ``average`` over these and ``drop`` from
    the first to the last; then, after the last one, ``base`` and ``new``, the accuracies on test
    records of base and new classes, ``harmonic``, their harmonic mean, ``new_as_base``, the share
    of records of new classes predicted as base ones; ``examples``, and, only where there are any,
    ``unlabelled`` and ``nonfinite`` (left out). The figure ``sessions`` shows the accuracies. The
    same ``seed`` draws the same records, whatever the features.

    Attributes:
      train: records of all classes; the shots of new classes are drawn from these.
      test: records of all classes. Batches need ``label`` int (B,), -1 being none.
      base: base classes.
      sessions: new classes of each session.
      shots: training records of a new class.
      alpha: share of the base prototypes in a new one, 0..1.
      tau: inverse temperature of their weights.
      draws: number of draws of the shots.
      seed: of the draws.
    """

    train: EvaluationData
    test: EvaluationData
    base: NonEmpty[tuple[int, ...]]
    sessions: tuple[NonEmpty[tuple[int, ...]], ...]
    shots: Positive[int] = 5
    alpha: Fraction = 0.5
    tau: Positive[float] = 16.0
    draws: Positive[int] = 1
    seed: int = 0

    def __post_init__(self) -> None:
        classes = [*self.base, *(c for session in self.sessions for c in session)]
        if len(set(classes)) < len(classes):
            raise ValueError("base and sessions: a class occurs twice")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``train`` and ``test`` once.

        Raises:
          DataError: a class without a test record, or with too few to train with.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        train, test = (
            labelled(predict, ctx, data, "embedding", "label") for data in (self.train, self.test)
        )
        order = np.array([*self.base, *(c for session in self.sessions for c in session)])
        for data, rows, minimum in ((self.train, train, self.shots), (self.test, test, 1)):
            sizes = np.bincount(rows.labels, minlength=order.max() + 1)[order]
            if sizes.min() < minimum:
                name, worst = data.source.info.name, int(sizes.argmin())
                raise DataError(
                    f"{name}: {sizes[worst]} records of class {order[worst]}, not {minimum}"
                )
        ends = np.cumsum([len(self.base), *map(len, self.sessions)])
        in_stream = np.isin(test.labels, order)
        index_of = np.zeros(order.max() + 1, np.int64)
        index_of[order] = np.arange(len(order))
        x, labels = test.x[in_stream], index_of[test.labels[in_stream]]
        correct, new_as_base = np.zeros((len(ends), len(order))), 0.0
        rng = np.random.default_rng(self.seed)
        for _ in range(self.draws):
            means = self._prototypes(train.x, train.labels, order, rng)
            for session, end in enumerate(ends):
                known = np.arange(len(order)) < end
                predicted = np.asarray(closeness(x, means, known, "cosine").argmax(1))
                correct[session] += np.bincount(labels[predicted == labels], minlength=len(order))
            new_as_base += float((predicted[labels >= ends[0]] < ends[0]).sum())
        sizes = np.bincount(labels, minlength=len(order))
        accuracies = [
            correct[s, :end].sum() / sizes[:end].sum() / self.draws for s, end in enumerate(ends)
        ]
        for session, value in enumerate(accuracies):
            yield f"session_{session}", float(value)
        yield "average", float(np.mean(accuracies))
        yield "drop", float(accuracies[0] - accuracies[-1])
        old = correct[-1, : ends[0]].sum() / sizes[: ends[0]].sum() / self.draws
        yield "base", float(old)
        if self.sessions:
            new_count = sizes[ends[0] :].sum()
            new = correct[-1, ends[0] :].sum() / new_count / self.draws
            yield "new", float(new)
            yield "harmonic", float(2 * old * new / max(old + new, 1e-12))
            yield "new_as_base", new_as_base / new_count / self.draws
        yield "examples", len(labels)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(train, name) + getattr(test, name):
                yield name, count
        line = Line(
            "classes so far", np.arange(len(accuracies), dtype=np.float64), np.asarray(accuracies)
        )
        yield "sessions", Curve((line,), "session", "accuracy")

    def _prototypes(
        self, x: np.ndarray, labels: np.ndarray, order: np.ndarray, rng: np.random.Generator
    ) -> jax.Array:
        """(C, D) of the classes in ``order``."""
        index = np.full(len(labels), -1)
        for position, name in enumerate(order):
            members = np.flatnonzero(labels == name)
            is_new = position >= len(self.base)
            index[rng.choice(members, self.shots, replace=False) if is_new else members] = position
        means = update(empty_means(len(order), x.shape[1]), x, index).mean
        means = jnp.asarray(normalised(np.asarray(means)))
        base, new = jnp.split(means, [len(self.base)])
        return jnp.concatenate([base, calibrated(new, base, self.alpha, self.tau)])
