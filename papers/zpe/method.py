"""ZPE: which sentences suit these images, told by how sure they make the model.

Zero-shot classes are embeddings of sentences, "a photo of a {}", and many templates are averaged.
Some suit the images and some mislead. With unit embeddings x_n of unlabelled test images and z_pk
of template p and class k, logits L = s x z, a template's score is its mean confidence,

    score_p = mean_n max_k N_npk,    N = L - (M_test + M_pre) / 2,
    M_pk = mean over images of L: over the test images, and over images of any kind.

Without the two means the score would like words that fit every image. They are taken off before
the maximum; and since L is linear in x, that is one shift of the images. Scores become weights,

    logits_nk = sum_p w_p L_npk,

or choose: templates whose score is more than a threshold of median absolute deviations above the
median. No label is looked at.

Allingham et al., A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in
Text-Image Models, 2023. Headline: ViT-B/16 on ImageNet, 247 templates, about 68.6 %, against 68.57
of 80 hand-crafted ones and less for the equal average of all. A score per image is not here. The
scores are weights as they are; where one is negative, none of them is below zero here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

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
from vision.metrics.arrays import blocks


def template_scores(
    images: np.ndarray, bank: np.ndarray, neutral: np.ndarray | None, scale: float = 100.0
) -> np.ndarray:
    """float64 (P,): how sure each template makes the model, whatever fits all images aside.

    Args:
      images: unlabelled embeddings (N, D).
      bank: of texts, (P, K, D).
      neutral: embeddings (M, D) of images of any kind; None for no correction at all.
      scale: s of the logits.
    """
    x = images.astype(np.float64)
    if neutral is not None:
        x = x - (x.mean(0) + neutral.astype(np.float64).mean(0)) / 2
    total = np.zeros(len(bank))
    for p, texts in enumerate(bank.astype(np.float64)):
        for rows in blocks(len(x), len(texts)):
            total[p] += (x[rows] @ texts.T).max(1).sum()
    return scale * total / len(x)


def weights(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Weights (P,) that sum to one: ``equal``, ``score``, ``softmax`` and ``power`` (the tenth).

    Scores below zero weigh nothing, unless all are, which makes all equal.
    """
    most = np.maximum(scores, 0)
    most = most / most.max() if most.max() > 0 else np.ones(len(scores))
    each = {
        "equal": np.ones(len(scores)),
        "score": most,
        "softmax": np.exp(scores - scores.max()),
        "power": most**10,
    }
    return {name: w / w.sum() for name, w in each.items()}


def chosen(scores: np.ndarray, threshold: float) -> np.ndarray:
    """bool (P,): scores further above the median than most are from it; the best one at least.

    The unit is the median absolute deviation.
    """
    gaps = scores - np.median(scores)
    spread = np.median(np.abs(gaps))
    return (gaps > threshold * spread) | (scores == scores.max())


@dataclasses.dataclass(frozen=True)
class WeightedZeroShot:
    """Zero-shot classification with templates weighed by their scores on the images themselves.

    Yields ``equal_top1``, ``score_top1``, ``softmax_top1``, ``power_top1`` and ``selected_top1``,
    ``naive_top1`` (as ``score``, the scores without correction), ``best_template_top1`` (by
    labels: no method can know it), ``selected`` (templates), ``templates``, ``examples``, and, only
    where there are any, ``unlabelled`` and ``nonfinite`` (both left out). ``predict`` has to give
    ``image/embedding`` and ``text/embedding``, unit vectors.

    Attributes:
      data: labelled images; the scores do not look at their labels.
      neutral: images of any kind, as the model was trained with.
      tokenizer: of the prompts: the one that the text tower was trained with.
      templates: sentences with ``{}`` where the class name belongs.
      templates_file: with templates, one per line or a JSON list; instead of ``templates``.
      class_names: in label order; empty takes those of the data.
      threshold: of the selection, see ``chosen``: 0.5 for ImageNet, 2 for fine-grained classes.
      scale: s of the logits, 100 in CLIP; only ``softmax`` depends on it.
      unit: whether the weighted mean of a class is made a unit vector, as ``ZeroShot`` does;
        False averages logits, as the paper does.
      text_batch: prompts that are embedded at a time; a multiple of the devices.
      label: name of the labels in a batch.
    """

    data: EvaluationData
    neutral: EvaluationData
    tokenizer: Tokenizer
    templates: tuple[str, ...] = ("{}",)
    templates_file: str = ""
    class_names: tuple[str, ...] = ()
    threshold: float = 0.5
    scale: float = 100.0
    unit: bool = False
    text_batch: int = 256
    label: str = "label"

    def __post_init__(self) -> None:
        check_templates(self.templates)
        if self.text_batch < 1 or not self.scale > 0:
            raise ValueError("text_batch: at least 1; scale: positive")

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
        bank = texts.reshape(len(names), len(templates), -1).swapaxes(0, 1)
        if not finite(texts).all():
            raise DataError("an embedding of the prompts is not finite: the text tower gives NaN")
        test = labelled(predict, ctx, self.data, IMAGE, self.label)
        neutral = embed(predict, ctx, self.neutral, (IMAGE,))[IMAGE]
        check_sizes(test.x, texts)

        def top1(weight: np.ndarray) -> float:
            classes = np.einsum("p,pkd->kd", weight, bank)
            classes = normalised(classes) if self.unit else classes
            return float(np.mean(classify(test.x, test.labels, classes)[1] < 1))

        neutral = neutral[finite(neutral)]
        scores = template_scores(test.x, bank, neutral, self.scale)
        for name, weight in weights(scores).items():
            yield f"{name}_top1", top1(weight)
        kept = chosen(scores, self.threshold)
        yield "selected_top1", top1(kept / kept.sum())
        naive = template_scores(test.x, bank, None, self.scale)
        yield "naive_top1", top1(weights(naive)["score"])
        yield "best_template_top1", max(top1(one) for one in np.eye(len(templates)))
        yield "selected", int(kept.sum())
        yield "templates", len(templates)
        yield "examples", len(test.x)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
