"""Robustness to common corruptions: top-1 at five severities, and mCE."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np

from vision.config.ranges import Ge, Le, NonEmpty, Unique, checked, one_of
from vision.data.ops.corruptions import CORRUPTIONS, Corruption
from vision.data.pipeline import EvalData
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.robustness.perturbed import answers, last_uint8, with_op
from vision.metrics.robustness import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, corruption_error

GROUPS: Mapping[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
_ALL = (1, 2, 3, 4, 5)


_Name = Annotated[str, one_of((*GROUPS, *CORRUPTIONS))]


@dataclasses.dataclass(frozen=True)
@checked
class Corruptions:
    """Top-1 of the records of ``data`` after each of ImageNet-C's corruptions.

    Yields, as shares of labelled records, ``clean``, ``top1`` (the mean of all corruptions and
    severities), ``top1_<corruption>`` (of its severities) and ``top1_<corruption>_<severity>``;
    with a baseline ``mce``, ``relative_mce`` and ``ce_<corruption>`` (times 100 the usual figures;
    see ``corruption_error``) and, only where the baseline has corruptions that are not measured,
    their number ``missing``: then the means are no mCE to compare with others'. Then ``examples``,
    and, only where there are any, ``unlabelled`` and ``nonfinite`` (NaN or infinity among the
    logits of a picture, clean or corrupted; NaN is wrong). The figure ``severity`` shows top-1
    from clean, at 0, to the strongest.

    A corruption is an op inserted into ``data.ops``, so it is the same every time and for every
    model, and a model's outputs for it are stored where features are stored. The published errors
    of AlexNet are those on ImageNet-C, at 224 pixels: mCE of other data is relative to those and
    means no more, and on small images the same severity hurts more. Where ours differ from the
    published files: ``vision.data.ops.corruptions``. Hendrycks and Dietterich, Benchmarking Neural
    Network Robustness to Common Corruptions and Perturbations, 2019.

    Attributes:
      data: what is corrupted; batches need labels.
      names: corruptions, or groups of them: noise, blur, weather, digital.
      severities: of 1..5.
      baseline: ``alexnet``; or top-1 errors of another model, its mean over ``severities`` by
        corruption and ``clean``; None for no mCE.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvalData
    names: NonEmpty[tuple[_Name, ...]] = tuple(CORRUPTIONS)
    severities: Unique[NonEmpty[tuple[Annotated[int, Ge(1), Le(5)], ...]]] = _ALL
    baseline: Literal["alexnet"] | Mapping[str, float] | None = "alexnet"
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def __post_init__(self) -> None:
        if isinstance(self.baseline, str):
            if set(self.severities) != set(_ALL):
                raise ValueError(
                    f"severities={self.severities}: AlexNet's errors are means of severities 1 to "
                    "5; set baseline=None, or to errors at these severities"
                )
        elif self.baseline is not None:
            missing = [name for name in ("clean", *self.chosen) if name not in self.baseline]
            if missing:
                raise ValueError(f"baseline lacks an error for {missing[0]!r}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The corruptions of ``names``, groups resolved, each once."""
        names = [corruption for name in self.names for corruption in GROUPS.get(name, (name,))]
        return tuple(dict.fromkeys(names))

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once, and once for every corruption and severity.

        Raises:
          DataError: no labelled records.
          MetricError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed, or no place for the op.
        """
        place, levels = last_uint8(self.data), sorted(self.severities)
        clean = answers(predict, ctx, self.data, self.logits, self.label)
        yield "clean", clean.accuracy
        top1, nonfinite = np.zeros((len(self.chosen), len(levels))), clean.nonfinite
        for i, name in enumerate(self.chosen):
            for j, severity in enumerate(levels):
                corrupted = with_op(self.data, Corruption(name, severity), place)
                predictions = answers(predict, ctx, corrupted, self.logits, self.label)
                top1[i, j] = predictions.accuracy
                nonfinite += predictions.nonfinite
                yield f"top1_{name}_{severity}", predictions.accuracy
            yield f"top1_{name}", float(top1[i].mean())
        yield "top1", float(top1.mean())
        if self.baseline is not None:
            yield from self._errors(dict(zip(self.chosen, 1 - top1, strict=True)), clean.accuracy)
        yield "examples", len(clean.right)
        if unlabelled := int((~clean.labelled).sum()):
            yield "unlabelled", unlabelled
        if nonfinite:
            yield "nonfinite", nonfinite
        x = np.asarray([0, *levels], np.float64)
        lines = [
            Line(name, x, np.asarray([clean.accuracy, *row]))
            for name, row in zip((*self.chosen, "mean"), (*top1, top1.mean(0)), strict=True)
        ]
        yield "severity", Curve(tuple(lines), "severity", "top-1")

    def _errors(
        self, errors: Mapping[str, np.ndarray], clean: float
    ) -> Iterator[tuple[str, float]]:
        reference, reference_clean = ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR
        if isinstance(self.baseline, Mapping):
            reference = {name: e for name, e in self.baseline.items() if name != "clean"}
            reference_clean = self.baseline["clean"]
        result = corruption_error(errors, 1 - clean, reference, reference_clean)
        yield "mce", result.mean
        yield "relative_mce", result.relative_mean
        for name, ce in zip(reference, result.ce, strict=True):
            if name in errors:
                yield f"ce_{name}", float(ce)
        if result.missing:
            yield "missing", len(result.missing)
