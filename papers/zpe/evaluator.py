"""Zero-shot evaluation with weighted prompt templates (ZPE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from papers.zpe.method import selected, template_scores, weights
from vision.config.ranges import Positive, checked
from vision.data.prompts import check_names, check_templates, load_templates, prompts
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    check_sizes,
    embed,
    embed_texts,
    finite,
    normalised,
)
from vision.evaluators.image_text.zero_shot import classify
from vision.evaluators.labelled import labelled


@dataclasses.dataclass(frozen=True)
@checked
class WeightedZeroShot:
    """Zero-shot classification with templates weighted by their scores on the test images.

    Yields ``equal_top1``, ``score_top1``, ``softmax_top1``, ``power_top1`` and ``selected_top1``,
    ``naive_top1`` (as ``score``, without correction), ``best_template_top1`` (chosen by labels, an
    upper bound), ``selected`` (templates), ``templates``, ``examples``, and, only
    where there are any, ``unlabelled`` and ``nonfinite`` (both left out). ``predict`` has to give
    ``image/embedding`` and ``text/embedding``, unit vectors.

    Attributes:
      data: images with ``label``; the scores do not use the labels.
      neutral: images of any kind, such as the model was trained on.
      tokenizer: of the prompts: the one that the text tower was trained with.
      templates: sentences with ``{}`` where the class name belongs.
      templates_file: with templates, one per line or a JSON list; instead of ``templates``.
      class_names: in label order; empty takes those of the data.
      threshold: of the selection, see ``selected``: 0.5 for ImageNet, 2 for fine-grained classes.
      scale: s of the logits, 100 in CLIP; only ``softmax`` depends on it.
      unit: whether the weighted mean of a class is made a unit vector, as ``ZeroShot`` does;
        False averages logits, as the paper does.
      text_batch: prompts that are embedded at a time; a multiple of the devices.
    """

    data: EvaluationData
    neutral: EvaluationData
    tokenizer: Tokenizer
    templates: tuple[str, ...] = ("{}",)
    templates_file: str = ""
    class_names: tuple[str, ...] = ()
    threshold: float = 0.5
    scale: Positive[float] = 100.0
    unit: bool = False
    text_batch: Positive[int] = 256

    def __post_init__(self) -> None:
        check_templates(self.templates)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` and ``neutral`` once.

        Raises:
          DataError: no records, no class names, or a template without a place for the name.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        templates = load_templates(self.templates_file) if self.templates_file else self.templates
        texts = embed_texts(
            predict, ctx, self.tokenizer, prompts(templates, names), self.text_batch
        )
        text_embeddings = texts.reshape(len(names), len(templates), -1).swapaxes(0, 1)
        if not finite(texts).all():
            raise DataError("an embedding of the prompts is not finite: the text tower gives NaN")
        test = labelled(predict, ctx, self.data, IMAGE, "label")
        neutral = embed(predict, ctx, self.neutral, (IMAGE,))[IMAGE]
        check_sizes(test.x, texts)

        def top1(weight: np.ndarray) -> float:
            classes = np.einsum("p,pkd->kd", weight, text_embeddings)
            classes = normalised(classes) if self.unit else classes
            return float(np.mean(classify(test.x, test.labels, classes)[1] < 1))

        neutral = neutral[finite(neutral)]
        scores = template_scores(test.x, text_embeddings, neutral, self.scale)
        for name, weight in weights(scores).items():
            yield f"{name}_top1", top1(weight)
        mask = selected(scores, self.threshold)
        yield "selected_top1", top1(mask / mask.sum())
        naive = template_scores(test.x, text_embeddings, None, self.scale)
        yield "naive_top1", top1(weights(naive)["score"])
        yield "best_template_top1", max(top1(one_hot) for one_hot in np.eye(len(templates)))
        yield "selected", int(mask.sum())
        yield "templates", len(templates)
        yield "examples", len(test.x)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
