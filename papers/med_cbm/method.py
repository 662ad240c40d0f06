"""Concept bottlenecks: an image is classified by its likeness to what a language model says of it.

For every class a language model lists what one sees. Concept texts and images go through a frozen
dual encoder; with unit vectors v_p of the patches (or of the whole image) and t_j of concept j

    s_j = max_p v_p . t_j,        logits = W (s - mean) / deviation + b

with mean and deviation over the training images, and W, b by cross-entropy. What tells the training
classes apart but is named by no concept, such as the hospital, has no way to the logits but through
scores. The terms ``W_kj s_j`` are the explanation: they and the bias add up to the logit, and a
concept is taken out of the decision by taking out its term (``vision.probes.concepts``).

Yan et al., Robust and Interpretable Medical Image Classifiers via Concept Bottleneck Models, 2023,
arXiv 2310.03182; no code of the authors was found, so that the following is ours: scores are
standardised; W has an L2 penalty, chosen on every tenth training image, and is found by L-BFGS to
convergence, where the paper has Adam; a small set of concepts is the one of the largest weights of
a first fit; concepts that name a class are left out, and one that two classes share counts once.
The baselines are theirs that need no training of towers: the same classifier on the embedding
itself, and the cosine with class names. Their concepts are written by GPT-4 and their towers are
BioViL; here they come from the config or a file, and any dual encoder will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.sites import activations
from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.data.descriptors import read_descriptors
from vision.data.prompts import check_names
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    check_sizes,
    embed,
    embed_texts,
    finite,
)
from vision.evaluators.image_text.zero_shot import classify
from vision.metrics.arrays import MetricError, class_indices
from vision.metrics.groups import group_accuracy
from vision.probes.concepts import (
    DECAYS,
    ConceptBottleneck,
    concept_list,
    fit_bottleneck,
    fit_chosen,
)
from vision.train.objective import Batch, Variables
from vision.train.tower import Tap

SCORES = "concepts"


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """``predict`` that also gives ``concepts``, float32 (B, C): likeness to concept texts.

    Attributes:
      predict: of a dual encoder; with a site it takes a tap as third argument.
      vectors: unit vectors float32 (C, D) of the texts.
      site: of unit vectors of patches, (B, prefix + P, D) or (B, h, w, D), of which the most like
        counts; "" scores ``image/embedding``.
      prefix: tokens before those of patches.
      pool: over patches.
    """

    predict: Predict
    vectors: np.ndarray
    site: str = ""
    prefix: int = 0
    pool: Literal["max", "mean"] = "max"

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Raises ``SiteError`` for a site that the tower lacks, ``ValueError`` where what is
        there has another width than the texts."""
        predict: Any = self.predict
        outputs: dict[str, jax.Array] = {}
        if not self.site:
            outputs.update(predict(variables, batch))
            found = outputs[IMAGE][:, None]
        else:

            def call(tap: Tap) -> None:
                outputs.update(predict(variables, batch, tap))

            (found,) = activations(call, (self.site,))
            found = found.reshape(len(found), -1, found.shape[-1])[:, self.prefix :]
        if found.shape[-1] != self.vectors.shape[1] or not found.shape[1]:
            raise ValueError(
                f"{self.site or IMAGE} holds {found.shape[1]} vectors of {found.shape[-1]} numbers "
                f"after prefix={self.prefix}; the texts' have {self.vectors.shape[1]}. A Dual with "
                "tokens=True has patches among texts at 'image/tokens'"
            )
        scores = found.astype(jnp.float32) @ self.vectors.T
        pooled = scores.max(1) if self.pool == "max" else scores.mean(1)
        return {**outputs, SCORES: pooled}


@dataclasses.dataclass(frozen=True)
@checked
class ConceptProbe:
    """A concept bottleneck fitted on ``train`` and measured on ``test``, beside its baselines.

    Yields ``top1`` of the bottleneck, ``probe_top1`` of the same classifier on ``image/embedding``,
    ``name_top1`` by the cosine with the class names; with ``group`` ``worst_group`` and
    ``probe_worst_group`` (least accuracy of a group of ``test``); ``concepts`` (that have a
    weight), ``decay``, ``held_out_top1``, ``examples`` and, only where there are any,
    ``unlabelled`` and ``nonfinite`` (records of either that are left out of fitting; in ``test``
    the latter count as wrong). The table ``weights`` has every concept with its weight for each
    class; ``explanations`` what the strongest concepts add to the answer for some images.

    Attributes:
      train: what is fitted.
      test: what is measured.
      tokenizer: that the text tower was trained with.
      concepts: name of a class to its concepts, or a JSON file that holds such an object.
      class_names: in label order; empty takes those of ``train``.
      group: name of an int (B,) entry of ``test``, -1 for none; "" for no groups.
      site: of patches, see ``Scored``; "" scores the whole image.
      prefix: tokens before those of patches at ``site``.
      pool: over patches.
      most: concepts that are kept; 0 for all.
      decays: to choose from; of mean NLL + decay / 2 |W|^2.
      text_batch: texts that are embedded at a time; a multiple of the devices.
      explained: how many images the table has at most.
      shown: how many concepts each of them has.
    """

    train: EvaluationData
    test: EvaluationData
    tokenizer: Tokenizer
    concepts: Mapping[str, tuple[str, ...]] | str
    class_names: tuple[str, ...] = ()
    group: str = ""
    site: str = ""
    prefix: NonNegative[int] = 0
    pool: Literal["max", "mean"] = "max"
    most: NonNegative[int] = 0
    decays: NonEmpty[tuple[Positive[float], ...]] = DECAYS
    text_batch: Positive[int] = 256
    explained: NonNegative[int] = 12
    shown: Positive[int] = 5

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both once.

        Raises:
          DataError: no records or class names, labels that are no class, concepts that are
            missing, or whose embedding is not finite.
          ConceptError: no concepts are left; fewer than ten training images.
          FitError: labels of one class only.
          SiteError: the tower has no such site.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.train.source.info.class_names)
        check_names(names, f"class names of {self.train.source.info.name}")
        concepts, of_class = concept_list(read_descriptors(self.concepts, names))
        texts = embed_texts(predict, ctx, self.tokenizer, [*concepts, *names], self.text_batch)
        if not finite(texts).all():
            raise DataError("an embedding of a concept is not finite: the text tower gives NaN")
        vectors, named = texts[: len(concepts)], texts[len(concepts) :]
        scored = Scored(predict, vectors, self.site, self.prefix, self.pool)
        train, test = (
            self._read(scored, ctx, data, len(names)) for data in (self.train, self.test)
        )
        check_sizes(train[IMAGE], texts)
        fit, known = _usable(train), test["label"] >= 0
        model = fit_bottleneck(
            train[SCORES][fit], train["label"][fit], len(names), concepts, self.decays, self.most
        )
        probe, _, _ = fit_chosen(train[IMAGE][fit], train["label"][fit], len(names), self.decays)
        label, ok = test["label"][known], _usable(test)[known]
        rows = {name: x[known] for name, x in test.items()}
        right = ok & (model.logits(rows[SCORES]).argmax(1) == label)
        probe_right = ok & (probe.logits(rows[IMAGE]).argmax(1) == label)
        yield "top1", float(right.mean())
        yield "probe_top1", float(probe_right.mean())
        yield "name_top1", float(np.mean(classify(rows[IMAGE], label, named)[1] < 1))
        if self.group:
            groups = rows[self.group]
            count = int(groups.max(initial=0)) + 1
            yield "worst_group", group_accuracy(right, groups, count).worst_accuracy
            yield "probe_worst_group", group_accuracy(probe_right, groups, count).worst_accuracy
        yield "concepts", int(model.weight.any(1).sum())
        yield "decay", model.decay
        yield "held_out_top1", model.held_out
        yield "examples", int(known.sum())
        unlabelled = int((train["label"] < 0).sum() + (~known).sum())
        nonfinite = int(((train["label"] >= 0) & ~fit).sum() + (~ok).sum())
        for name, value in (("unlabelled", unlabelled), ("nonfinite", nonfinite)):
            if value:
                yield name, value
        yield "weights", _weights(model, of_class, names)
        if self.explained:
            shown = np.flatnonzero(ok)[: self.explained]
            truth = [names[k] for k in label[shown]]
            yield "explanations", explanations(model, rows[SCORES][shown], truth, names, self.shown)

    def _read(
        self, scored: Scored, ctx: EvalContext, data: EvaluationData, classes: int
    ) -> dict[str, np.ndarray]:
        more = (self.group,) if self.group and data is self.test else ()
        rows = embed(scored, ctx, data, (IMAGE, SCORES), ("label", *more))
        try:
            label = class_indices("label", rows["label"], len(rows[IMAGE]), classes)
        except MetricError as error:
            raise DataError(f"{data.source.info.name}: {error}") from error
        if not (label >= 0).any():
            raise DataError(f"{data.source.info.name}: no record with a label")
        return {**rows, "label": label}


def _usable(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return (rows["label"] >= 0) & finite(rows[SCORES]) & finite(rows[IMAGE])


def _weights(model: ConceptBottleneck, of_class: tuple[int, ...], names: tuple[str, ...]) -> Table:
    rows = tuple(
        (text, names[k], *(f"{w:+.3f}" for w in weights))
        for text, k, weights in zip(model.concepts, of_class, model.weight, strict=True)
        if weights.any()
    )
    return Table(("concept", "listed for", *names), rows)


def explanations(
    model: ConceptBottleneck,
    raw: np.ndarray,
    truth: list[str],
    names: tuple[str, ...],
    shown: int,
) -> Table:
    """What concepts add to the logit of the answer, the strongest first, and the bias.

    Args:
      model: the bottleneck.
      raw: scores (N, C) of N images.
      truth: their classes.
      names: of all classes.
      shown: concepts of each image.
    """
    answer = model.logits(raw).argmax(1)
    added = np.take_along_axis(model.contributions(raw), answer[:, None, None], 2)[..., 0]
    rows: list[tuple[str, ...]] = []
    for i, (k, each) in enumerate(zip(answer.tolist(), added, strict=True)):
        head = (str(i), truth[i], names[k])
        order = np.argsort(-np.abs(each), kind="stable")[:shown].tolist()
        rows += [(*head, model.concepts[j], f"{each[j]:+.3f}") for j in order]
        rest = each.sum() - each[order].sum() + model.bias[k]
        rows.append((*head, "all others and the bias", f"{rest:+.3f}"))
    return Table(("image", "class", "answer", "concept", "adds"), tuple(rows))
