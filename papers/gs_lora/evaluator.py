"""What a request changed: accuracies on what remains and what is forgotten, and which blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from papers.gs_lora.terms import changed, group_norms, harmonic
from vision.config.ranges import NonEmpty, NonNegative, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import embed


@dataclasses.dataclass(frozen=True)
@checked
class Forgetting:
    """A network after a request of ``Forget``, beside what it was before.

    Yields ``remain`` and ``forget``, accuracies on images of remaining and of forgotten classes,
    with ``remain_before`` and ``forget_before``; ``drop`` of the second one; ``h``, the harmonic
    mean of ``remain`` and ``drop``; ``blocks``, the share of blocks that changed; ``examples``; and
    the curve ``norm_by_block``.

    Attributes:
      data: labelled images, of classes that were not forgotten before this request.
      forget: classes of the request.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
    """

    data: EvaluationData
    forget: NonEmpty[tuple[NonNegative[int], ...]]
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no images of a class to forget, or none that remain.
          ValueError: a run without adapters, or outputs that lack.
        """
        adapters = ctx.variables.params["model"].get("adapters")
        if adapters is None:
            raise ValueError("Forgetting reads adapters, and the run has none: it is for Forget")
        rows = embed(predict, ctx, self.data, ("logits", "before/logits"), (self.label,))
        label, name = rows[self.label], self.data.source.info.name
        for wanted in self.forget:
            if not (label == wanted).any():
                raise DataError(f"{name}: no image of class {wanted} of forget={self.forget}")
        forgets = np.isin(label, self.forget)
        remains = ~forgets & (label >= 0)
        if not remains.any():
            raise DataError(f"{name}: no image of a class that remains")
        right, before = (rows[of].argmax(-1) == label for of in ("logits", "before/logits"))
        remain, forget = float(right[remains].mean()), float(right[forgets].mean())
        drop = float(before[forgets].mean()) - forget
        yield "remain", remain
        yield "forget", forget
        yield "remain_before", float(before[remains].mean())
        yield "forget_before", float(before[forgets].mean())
        yield "drop", drop
        yield "h", harmonic(remain, drop)
        norms = np.asarray(group_norms(adapters), np.float64)
        yield "blocks", changed(norms)
        yield "examples", int(remains.sum() + forgets.sum())
        line = Line("adapters", np.arange(float(len(norms))), norms)
        yield "norm_by_block", Curve((line,), "block", "norm")
