"""Nearest mean of a frozen network: a stream of classes learned by adding up features.

A pretrained network z = f(x) stays as it is. Of every class c that has come so far two things are
kept, the sum of its features and their number:

    s_c += z,  n_c += 1,      y(x) = argmin_c || f(x) - s_c / n_c ||.

No training, no exemplars, no task's name, one head for all classes. The order of records does not
matter, nor whether they come one by one, nor whether a class comes back later: sums are sums. What
was learned of a class is never forgotten; it can only be mistaken for a class that came after it.
The distance is Euclidean; the cosine is an option, since which one is better is not known.

Janson et al., A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning,
2022. Headline: 88.53 % on CIFAR-100 in ten tasks with a ViT-B/16 of ImageNet-21k. Tasks of new
domains (CORe50) are a stream whose parts all hold every class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.labelled import Labelled, labelled
from vision.metrics.arrays import check_choice
from vision.metrics.continual import continual
from vision.probes.class_means import ClassMeans, Metric, closeness, empty_means, update


@dataclasses.dataclass(frozen=True)
class NearestMeanStream:
    """What nearest means know after every part of a stream, of the classes that have come.

    Yields ``last``, the accuracy on all classes that came; ``average``, the mean over parts of the
    accuracy on the classes so far; where every part brings a new class also ``forgetting``, see
    ``vision.metrics.continual``; then ``parts``, ``classes``, ``examples`` (of ``test``, whose
    class came), ``memory_bytes`` of the sums and counts, and, only where there are any,
    ``unlabelled``, ``nonfinite`` (both left out) and ``never_came`` (records of ``test``, left
    out). The figure ``accuracy`` shows it after every part.

    Attributes:
      stream: its parts, in order.
      test: of all classes.
      metric: ``euclidean`` or ``cosine``.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    stream: tuple[EvaluationData, ...]
    test: EvaluationData
    metric: Metric = "euclidean"
    output: str = "embedding"
    label: str = "label"

    def __post_init__(self) -> None:
        if not self.stream:
            raise ValueError("stream: at least one part")
        check_choice("metric", self.metric, ("euclidean", "cosine"))

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``test`` and every part once.

        Raises:
          DataError: data without labelled records, or no record of ``test`` of any class of them.
          ValueError: ``predict`` or the batches lack what is needed.
        """

        def read(data: EvaluationData) -> Labelled:
            return labelled(predict, ctx, data, self.output, self.label)

        parts, test = [read(data) for data in self.stream], read(self.test)
        classes = 1 + int(max(rows.labels.max() for rows in (*parts, test)))
        first = np.full(classes, len(parts))  # the part in which a class comes
        for number, part in reversed(list(enumerate(parts))):
            first[part.labels] = number
        came = first[test.labels] < len(parts)
        x, labels = test.x[came], test.labels[came]
        if not len(labels):
            raise DataError(f"{self.test.source.info.name}: no record of a class of the stream")
        tasks = first[labels]
        sizes = np.bincount(tasks, minlength=len(parts))
        right = np.zeros((len(parts), len(parts)))
        state = empty_means(classes, x.shape[1])
        for number, part in enumerate(parts):
            state = update(state, part.x, part.labels)
            hit = answers(state, x, self.metric) == labels
            right[number] = np.bincount(tasks[hit], minlength=len(parts))
        so_far = np.tril(right).sum(1) / np.cumsum(sizes)
        yield "last", float(so_far[-1])
        yield "average", float(so_far.mean())
        if sizes.all():
            yield "forgetting", continual(right, sizes)["forgetting"]
        yield "parts", len(parts)
        yield "classes", int(state.present.sum())
        yield "examples", len(labels)
        yield "memory_bytes", int(state.sum.nbytes + state.count.nbytes)
        left_out = {
            "unlabelled": sum(rows.unlabelled for rows in (*parts, test)),
            "nonfinite": sum(rows.nonfinite for rows in (*parts, test)),
            "never_came": int((~came).sum()),
        }
        for name, count in left_out.items():
            if count:
                yield name, count
        line = Line("classes so far", np.arange(1.0, len(parts) + 1), so_far)
        yield "accuracy", Curve((line,), "parts of the stream", "accuracy")


def answers(state: ClassMeans, x: np.ndarray, metric: Metric = "euclidean") -> np.ndarray:
    """int (N,): the class whose mean is nearest to features x (N, D), the first of equals."""
    return np.asarray(closeness(x, state.mean, state.present, metric).argmax(1))
