"""Out-of-distribution detection and open-set recognition by a classifier's scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from vision.config.ranges import NonEmpty, checked, one_of
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import Rows, embed, fetched, finite
from vision.evaluators.robustness.odin import MOVED, Moved, Odin
from vision.metrics import out_of_distribution as outliers
from vision.metrics.arrays import predictions
from vision.metrics.detection import OpenSetCurve, detection, open_set

_OF_LOGITS = {
    "msp": outliers.max_softmax,
    "max_logit": outliers.max_logit,
    "energy": outliers.energy,
}
_OF_FEATURES = ("mahalanobis", "knn", "vim")
_SCORES = (*_OF_LOGITS, "odin", *_OF_FEATURES)

Score = Callable[[Rows], np.ndarray]


@dataclasses.dataclass(frozen=True)
@checked
class OutOfDistribution:
    """Every score on every outside set: ``auroc``, ``aupr_in``, ``aupr_out``, ``fpr95``, ``oscr``.

    Yields them under ``<set>_<score>_<number>``, all shares 0..1 (``oscr`` up to the accuracy);
    then ``examples`` (of ``inside``), ``examples_<set>``, and, only where there are any,
    ``nonfinite`` (records of any set whose logits or features are not finite: left out). Then a
    figure of open-set curves for every set. Scores are greater for what is in distribution; see
    ``vision.metrics.out_of_distribution`` and, for ``odin``, ``vision.evaluators.robustness.odin``.
    With ``odin`` the model takes three times as long, and no feature store is used.

    Attributes:
      inside: records of the trained classes, with labels.
      outside: name to data, such as ``{"near": ..., "far": ...}``; labels are not needed.
      fit_on: training records with labels, for the scores of features; None where there are none.
      scores: of ``msp``, ``max_logit``, ``energy``, ``odin``, ``mahalanobis``, ``knn``, ``vim``.
      neighbours: the distance of ``knn`` is that to the training record of this rank.
      odin: temperature and step of ``odin``.
      head: for ``vim``, path in the parameters of the linear layer from ``features`` to
        ``logits``, which has ``kernel`` (D, K) and ``bias`` (K,).
      principal: for ``vim``, dimension of the principal space; None for the authors' choice.
      logits, features: names of (B, K) and (B, D) that ``predict`` gives.
      label: name of an int (B,) entry of the batches of ``inside`` and ``fit_on``.
    """

    inside: EvaluationData
    outside: NonEmpty[Mapping[str, EvaluationData]]
    fit_on: EvaluationData | None = None
    scores: NonEmpty[tuple[Annotated[str, one_of(_SCORES)], ...]] = ("msp", "max_logit", "energy")
    neighbours: int = 50
    odin: Odin = Odin()  # noqa: RUF009 - frozen
    head: str = "model/head"
    principal: int | None = None
    logits: str = "logits"
    features: str = "embedding"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"inside": ("label",), "fit_on": ("label",)}

    def __post_init__(self) -> None:
        if self.fit_on is None and set(self.scores) & set(_OF_FEATURES):
            raise ValueError(
                f"{', '.join(_OF_FEATURES)} are fitted on training records: set fit_on"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads every set once.

        Raises:
          DataError: a set without a record of finite scores.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        inside, nonfinite = self._read(predict, ctx, self.inside, True)
        scores, skipped = self._scores(predict, ctx)
        nonfinite += skipped
        inside_scores = {name: score(inside) for name, score in scores.items()}
        correct = predictions(inside[self.logits]) == inside[self.label]
        outside_rows = {}
        for name, data in self.outside.items():
            outside_rows[name], skipped = self._read(predict, ctx, data, False)
            nonfinite += skipped
            lines = []
            for score, score_fn in scores.items():
                outside_scores = score_fn(outside_rows[name])
                for number, value in dataclasses.asdict(
                    detection(inside_scores[score], outside_scores)
                ).items():
                    if number not in ("inside", "outside"):
                        yield f"{name}_{score}_{number}", value
                curve = open_set(inside_scores[score], correct, outside_scores)
                yield f"{name}_{score}_oscr", curve.area
                lines.append(_line(score, curve))
            yield (
                f"{name}_open_set",
                Curve(
                    tuple(lines), f"false positive rate on {name}", "correct classification rate"
                ),
            )
        yield "examples", len(correct)
        for name, rows in outside_rows.items():
            yield f"examples_{name}", len(rows["_index"])
        if nonfinite:
            yield "nonfinite", nonfinite

    def _scores(self, predict: Predict, ctx: EvalContext) -> tuple[dict[str, Score], int]:
        functions: dict[str, Score] = {}
        for name in self.scores:
            if name in _OF_LOGITS:
                functions[name] = lambda rows, score_fn=_OF_LOGITS[name]: score_fn(
                    rows[self.logits]
                )
        if "odin" in self.scores:
            functions["odin"] = lambda rows: outliers.max_softmax(
                rows[MOVED].astype(np.float64) / self.odin.temperature
            )
        skipped = 0
        if len(functions) < len(self.scores) and self.fit_on is not None:
            rows, skipped = self._read(predict, ctx, self.fit_on, True)
            features, labels = rows[self.features], rows[self.label]
            if "mahalanobis" in self.scores:
                fitted = outliers.fit_mahalanobis(features, labels)
                functions["mahalanobis"] = lambda rows: fitted.score(rows[self.features])
            if "knn" in self.scores:
                bank = outliers.fit_neighbours(features, min(self.neighbours, len(features)))
                functions["knn"] = lambda rows: bank.score(rows[self.features])
            if "vim" in self.scores:
                kernel, bias = self._head(ctx, rows)
                virtual = outliers.fit_virtual_logit(features, kernel, bias, self.principal)
                functions["vim"] = lambda rows: virtual.score(
                    rows[self.features], rows[self.logits]
                )
        return {name: functions[name] for name in self.scores}, skipped

    def _head(self, ctx: EvalContext, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of the last layer, which must map features to logits."""
        layer: Any = ctx.variables.params
        for name in self.head.split("/"):
            layer = layer.get(name, {}) if isinstance(layer, Mapping) else {}
        if not {"kernel", "bias"} <= set(layer):
            raise ValueError(
                f"head={self.head!r}: no layer with kernel and bias is there; the parameters have "
                f"{', '.join(_layers(ctx.variables.params)) or 'no such layer'}"
            )
        kernel, bias = (np.asarray(fetched(layer[name]), np.float64) for name in ("kernel", "bias"))
        features, logits = rows[self.features][:64], rows[self.logits][:64]
        if kernel.shape != (features.shape[1], logits.shape[1]):
            raise ValueError(
                f"head={self.head!r}: its kernel is {kernel.shape}, but {self.features} is "
                f"{features.shape} and {self.logits} {logits.shape}"
            )
        difference = np.abs(features @ kernel + bias - logits).max()
        # Room for towers in bfloat16.
        if difference > 0.05 * max(np.abs(logits).max(), 1e-3):
            raise ValueError(
                f"head={self.head!r} does not make {self.logits} of {self.features}: they differ "
                f"by up to {difference:.3g}; vim needs what goes into the last linear layer"
            )
        return kernel, bias

    def _read(
        self, predict: Predict, ctx: EvalContext, data: EvaluationData, labelled: bool
    ) -> tuple[Rows, int]:
        """Rows with finite scores, and how many have others."""
        outputs = (self.logits,)
        if set(self.scores) & set(_OF_FEATURES):
            outputs = (self.logits, self.features)
        if "odin" in self.scores:
            predict, outputs = Moved(predict, self.odin, self.logits), (*outputs, MOVED)
        rows = embed(predict, ctx, data, outputs, (self.label,) if labelled else ())
        valid = np.logical_and.reduce([finite(rows[name]) for name in outputs])
        if not valid.any():
            raise DataError(
                f"{data.source.info.name}: no record with finite {' and '.join(outputs)}"
            )
        return {name: x[valid] for name, x in rows.items()}, int((~valid).sum())


def _layers(params: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Paths of layers that map vectors to vectors."""
    paths = []
    for name, child in sorted(params.items()):
        if isinstance(child, Mapping):
            if getattr(child.get("kernel"), "ndim", 0) == 2 and "bias" in child:
                paths.append(prefix + name)
            paths += _layers(child, f"{prefix}{name}/")
    return paths


def _line(name: str, curve: OpenSetCurve, most: int = 200) -> Line:
    """A line of at most ``most`` points of the curve, both ends among them."""
    count = len(curve.false_positive_rate)
    places = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    return Line(name, curve.false_positive_rate[places], curve.classification_rate[places])
