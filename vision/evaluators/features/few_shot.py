"""Few-shot classification with frozen features, in N-way K-shot episodes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import numpy as np

from vision.config.ranges import Finite, Ge, NonEmpty, Positive, checked, one_of
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import normalised
from vision.evaluators.labelled import labelled
from vision.metrics.arrays import blocks
from vision.metrics.significance import normal_interval
from vision.probes.episodes import Episodes, centroids, draw_episodes, logistic, ridge

HEADS = ("centroid", "ridge", "logistic")

Head = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
@checked
class FewShot:
    """N-way K-shot episodes over the features of ``data``, whose classes training has not seen.

    Yields ``<head>_<K>shot``, the mean over episodes of the share of right answers, and
    ``<head>_<K>shot_ci95``, half the width of its 95 % interval, ``1.96 s / sqrt(episodes)``; then
    ``classes`` (that have enough examples for the most shots), ``examples``, and, only where there
    are any, ``small_classes`` (with too few), ``unlabelled`` and ``nonfinite`` (left out). The same
    ``seed`` gives the same episodes, for every head and whatever the features. Protocol: Vinyals
    et al., "Matching Networks", 2016; 15 queries per class as in its successors. Heads:
    ``vision.probes.episodes``.

    Attributes:
      data: records with labels; support and queries are drawn from it.
      ways: classes per episode.
      shots: examples per class, one set of episodes for each.
      queries: query examples per class and episode.
      episodes: number of episodes for each of ``shots``.
      heads: of ``centroid``, ``ridge``, ``logistic``.
      decay: penalty of ``ridge``.
      c: inverse penalty of ``logistic``.
      seed: of the episodes.
      output: name of the features (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvaluationData
    ways: Annotated[int, Ge(2)] = 5
    shots: NonEmpty[tuple[Positive[int], ...]] = (1, 5)
    queries: Positive[int] = 15
    episodes: Annotated[int, Ge(2)] = 600
    heads: NonEmpty[tuple[Annotated[str, one_of(HEADS)], ...]] = HEADS
    decay: Positive[Finite] = 0.1
    c: Positive[Finite] = 1.0
    seed: int = 0
    output: str = "embedding"
    label: str = "label"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records with labels.
          FitError: too few classes with enough examples.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        features = labelled(predict, ctx, self.data, self.output, self.label)
        x, labels, nonfinite = features.x, features.labels, features.nonfinite
        x = normalised(x)
        finite = np.isfinite(x).all(1)
        x, labels, nonfinite = x[finite], labels[finite], nonfinite + int((~finite).sum())
        heads: Mapping[str, Head] = {
            "centroid": centroids,
            "ridge": functools.partial(ridge, decay=self.decay),
            "logistic": functools.partial(logistic, c=self.c),
        }
        for shots in self.shots:
            episodes = draw_episodes(
                labels, self.ways, shots, self.queries, self.episodes, self.seed
            )
            for name in self.heads:
                interval = normal_interval(_accuracy(x, episodes, heads[name]))
                yield f"{name}_{shots}shot", interval.value
                yield f"{name}_{shots}shot_ci95", (interval.high - interval.low) / 2
        sizes = np.unique(labels, return_counts=True)[1]
        enough = int((sizes >= max(self.shots) + self.queries).sum())
        yield "classes", enough
        yield "examples", len(x)
        left_out = {
            "small_classes": len(sizes) - enough,
            "unlabelled": features.unlabelled,
            "nonfinite": nonfinite,
        }
        for name, count in left_out.items():
            if count:
                yield name, count


def _accuracy(x: np.ndarray, episodes: Episodes, head: Head) -> np.ndarray:
    """Accuracy of every episode, float64 (E,)."""
    count, ways, shots = episodes.support.shape
    queries = episodes.query.shape[2]
    labels = np.repeat(np.arange(ways), queries)
    accuracy = np.empty(count)
    cells = ways * (shots + queries) * (x.shape[1] + ways * shots)
    for part in blocks(count, cells):
        support = x[episodes.support[part]].astype(np.float64)
        query = x[episodes.query[part]].astype(np.float64)
        scores = head(support, query.reshape(len(query), ways * queries, -1))
        accuracy[part] = (scores.argmax(2) == labels).mean(1)
    return accuracy
