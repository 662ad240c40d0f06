"""Zero-shot classification with text embeddings of prompts as the classifier's weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from vision.blocks.ranking import distinct_rows
from vision.config.ranges import Finite, NonNegative, Positive, checked
from vision.data.prompts import (
    NAME,
    PLAIN,
    Classes,
    check_names,
    check_templates,
    load_class_names,
    load_language_templates,
    load_templates,
    prompts,
)
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import ConfusionMatrix, Curve, Figure, Gallery, Line, Picture
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    Rows,
    check_sizes,
    embed,
    embed_texts,
    finite,
    normalised,
)
from vision.evaluators.thumbnail import picture

_SCORES = 2**24  # at a time


@dataclasses.dataclass(frozen=True)
@checked
class ZeroShot:
    """Zero-shot classification by cosine with the text embeddings of the class names.

    The embedding of a class is the mean of the unit embeddings of its prompts, one per template,
    made a unit vector again (Radford et al., 2021); all of them are computed once per run.

    Yields ``top1``, ``top5`` (more than 5 classes), ``macro`` (mean over classes that occur of
    their accuracy), ``worst_class``, ``examples`` (labelled images, over which these are),
    ``prompts``, and, only where there are any, ``unlabelled`` (label -1) and ``nonfinite``
    (images whose embedding has NaN or infinity: wrong). With at most ``list_classes`` classes
    also ``accuracy/NAME`` of those that occur. Figures: ``confusion`` (without the nonfinite
    ones) and ``mistakes``, the most confident ones. Equal scores go to the earlier class.

    ``predict`` has to give ``image/embedding`` (B, D) of the data's batches, and
    ``text/embedding`` (B, D) of batches with only ``text`` (B, T), unit vectors.

    Attributes:
      data: what is read; batches need ``label``, int (B,).
      tokenizer: of the prompts: the one that the text tower was trained with.
      templates: sentences with ``{}`` where the class name belongs.
      templates_file: with templates, one per line or a JSON list; instead of ``templates``.
      class_names: in label order; empty takes those of the data.
      text_batch: prompts that are embedded at a time; a multiple of the devices.
      label: name of the labels in a batch.
      mistakes: how many wrong answers to show.
      temperature: of the softmax over cosines that gives the mistakes' probabilities.
      list_classes: largest number of classes for which ``accuracy/NAME`` is yielded.
      image: name of the image in the records of ``data.source``, for the pictures.
      confusion_max_classes: with more classes than this there is no confusion matrix.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    templates: tuple[str, ...] = PLAIN
    templates_file: str = ""
    class_names: tuple[str, ...] = ()
    text_batch: Positive[int] = 256
    label: str = "label"
    mistakes: NonNegative[int] = 24
    temperature: Positive[Finite] = 0.01
    list_classes: int = 32
    image: str = "image"
    confusion_max_classes: int = 4096

    def __post_init__(self) -> None:
        check_templates(self.templates)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, no class names, labels that are no class, a template without a
            place for the name, or a class whose prompts have no finite embedding.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        templates = load_templates(self.templates_file) if self.templates_file else self.templates
        bank = text_bank(predict, ctx, self.tokenizer, templates, names, self.text_batch)
        images = _images(predict, ctx, self.data, self.label, len(names))
        check_sizes(images.embedding, bank)
        best, rank = classify(images.embedding, images.label, bank)

        counted = images.label >= 0
        true_rank = rank[counted]
        yield "top1", _mean(true_rank < 1)
        if len(names) > 5:
            yield "top5", _mean(true_rank < 5)
        accuracy = per_class(images.label, rank, len(names))
        occurring = accuracy[~np.isnan(accuracy)]
        yield "macro", _mean(occurring)
        yield "worst_class", float(occurring.min()) if occurring.size else np.nan
        yield "examples", int(counted.sum())
        yield "prompts", len(names) * len(templates)
        if unlabelled := int((~counted).sum()):
            yield "unlabelled", unlabelled
        if nonfinite := int((counted & ~finite(images.embedding)).sum()):
            yield "nonfinite", nonfinite
        if len(names) <= self.list_classes:
            for name, value in zip(names, accuracy.tolist(), strict=True):
                if not np.isnan(value):
                    yield f"accuracy/{name}", value
        valid = counted & finite(images.embedding)
        if len(names) <= self.confusion_max_classes:
            counts = np.zeros((len(names), len(names)), np.int64)
            np.add.at(counts, (images.label[valid], best[valid]), 1)
            yield "confusion", ConfusionMatrix(counts, names)
        if self.mistakes:
            wrong = np.flatnonzero(valid & (rank > 0))
            yield "mistakes", Gallery(tuple(self._shown(images, bank, best, wrong, names)))

    def _shown(
        self,
        images: _Images,
        bank: np.ndarray,
        best: np.ndarray,
        wrong: np.ndarray,
        names: tuple[str, ...],
    ) -> Iterator[Picture]:
        probability = np.zeros(len(wrong))
        step = max(1, _SCORES // len(bank))
        for start in range(0, len(wrong), step):
            rows = wrong[start : start + step]
            scores = (images.embedding[rows] @ bank.T).astype(np.float64) / self.temperature
            scores -= scores.max(1, keepdims=True)
            probability[start : start + step] = 1 / np.exp(scores).sum(1)
        for i in np.argsort(-probability, kind="stable")[: self.mistakes].tolist():
            row = int(wrong[i])
            label, prediction = names[images.label[row]], names[best[row]]
            index = int(images.index[row])
            yield picture(
                self.data.source, index, self.image, label, prediction, float(probability[i])
            )


@dataclasses.dataclass(frozen=True)
@checked
class MultilingualZeroShot:
    """``ZeroShot`` in every language that has names for some of the classes (Babel-ImageNet).

    The images are embedded once. In a language only its own classes count: images of others are
    left out, and the answer is the best of its own. For comparison the same images and classes are
    classified by the data's own names too.

    Yields per language ``accuracy/LANGUAGE``, ``own_accuracy/LANGUAGE`` (by the data's names) and
    ``classes/LANGUAGE``; then ``accuracy``, the mean over languages, and, only where there are
    any, ``unlabelled``, ``nonfinite`` (wrong) and ``languages_without_images``. The figure
    ``languages`` draws both accuracies, the language with the most classes first. ``predict`` as
    in ``ZeroShot``.

    Attributes:
      data: what is read; batches need ``label``, int (B,).
      tokenizer: of the prompts.
      names_file: JSON, see ``vision.data.prompts.load_class_names``.
      templates: sentences with ``{}`` for the name, where a language has none of its own; the
        name alone by default.
      templates_file: JSON of templates per language; empty for none.
      class_names: in label order; empty takes those of the data.
      text_batch: prompts that are embedded at a time; a multiple of the devices.
      label: name of the labels in a batch.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    names_file: str
    templates: tuple[str, ...] = NAME
    templates_file: str = ""
    class_names: tuple[str, ...] = ()
    text_batch: Positive[int] = 256
    label: str = "label"

    def __post_init__(self) -> None:
        check_templates(self.templates)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once. Errors as in ``ZeroShot``, with the language."""
        names = self.class_names or tuple(self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        languages = load_class_names(self.names_file, names)
        translated = load_language_templates(self.templates_file) if self.templates_file else {}
        if unknown := sorted(translated.keys() - languages.keys()):
            raise DataError(
                f"{self.templates_file}: no class names in {unknown[0]!r}; {self.names_file} has "
                f"{', '.join(languages)}"
            )
        images = _images(predict, ctx, self.data, self.label, len(names))
        bank_of_data = text_bank(
            predict, ctx, self.tokenizer, self.templates, names, self.text_batch
        )
        check_sizes(images.embedding, bank_of_data)

        results: dict[str, tuple[int, float, float]] = {}
        without = 0
        for language, classes in languages.items():
            templates = translated.get(language, self.templates)
            bank = text_bank(
                predict, ctx, self.tokenizer, templates, classes.names, self.text_batch, language
            )
            translated_accuracy, own_accuracy = _accuracies(images, classes, bank, bank_of_data)
            without += int(np.isnan(translated_accuracy))
            results[language] = len(classes.names), translated_accuracy, own_accuracy
            if not np.isnan(translated_accuracy):
                yield f"accuracy/{language}", translated_accuracy
                yield f"own_accuracy/{language}", own_accuracy
            yield f"classes/{language}", len(classes.names)
        measured = [
            translated_accuracy
            for _, translated_accuracy, _ in results.values()
            if not np.isnan(translated_accuracy)
        ]
        yield "accuracy", _mean(np.asarray(measured))
        for name, count in (
            ("unlabelled", int((images.label < 0).sum())),
            ("nonfinite", int((~finite(images.embedding)).sum())),
            ("languages_without_images", without),
        ):
            if count:
                yield name, count
        ranked = sorted(results.values(), key=lambda result: -result[0])
        x = np.arange(1.0, len(ranked) + 1)
        lines = (
            Line(
                "in the language",
                x,
                np.asarray([translated_accuracy for _, translated_accuracy, _ in ranked]),
            ),
            Line(
                "by the data's names",
                x,
                np.asarray([own_accuracy for _, _, own_accuracy in ranked]),
            ),
        )
        yield "languages", Curve(lines, "language, most classes first", "accuracy")


@dataclasses.dataclass(frozen=True, eq=False)
class _Images:
    embedding: np.ndarray  # (N, D)
    label: np.ndarray  # (N,), -1 unlabelled
    index: np.ndarray  # (N,) in the source


def text_bank(
    predict: Predict,
    ctx: EvalContext,
    tokenizer: Tokenizer,
    templates: Sequence[str],
    names: Sequence[str],
    batch_size: int,
    language: str = "",
) -> np.ndarray:
    """Unit vectors (K, D) of K class names: the mean over templates of their prompts' embeddings.

    Raises:
      DataError: a prompt's embedding is not finite, or those of a class add up to zero.
    """
    texts = prompts(templates, names)
    embeddings = embed_texts(predict, ctx, tokenizer, texts, batch_size)
    bank = normalised(embeddings.reshape(len(names), len(templates), -1).mean(1))
    if undefined := np.flatnonzero(~finite(bank)).tolist():
        where = f" in {language!r}" if language else ""
        raise DataError(
            f"{len(undefined)} class(es){where} have no finite text embedding, the first is "
            f"{names[undefined[0]]!r}: the text tower gives NaN, or opposite vectors"
        )
    return bank


def classify(
    embedding: np.ndarray, label: np.ndarray, bank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best class, and how many classes come before the true one, both int64 (N,).

    A class comes before another with a greater score, or an equal one and a lower index. Where
    the embedding is not finite, or there is no label, the number is K.

    Args:
      embedding: (N, D) float.
      label: (N,) int, -1 for none.
      bank: (K, D) float.
    """
    # Classes with equal vectors are multiplied once: a matrix product rounds by position.
    vectors, vector_of = distinct_rows(bank)
    vectors = vectors.astype(np.float64)
    best = np.zeros(len(embedding), np.int64)
    rank = np.full(len(embedding), len(bank), np.int64)
    step = max(1, _SCORES // len(bank))
    usable = np.flatnonzero(finite(embedding))
    for start in range(0, len(usable), step):
        rows = usable[start : start + step]
        scores = (embedding[rows].astype(np.float64) @ vectors.T)[:, vector_of]
        best[rows] = scores.argmax(1)
        labels = label[rows][:, None]
        true_scores = np.take_along_axis(scores, np.maximum(labels, 0), 1)
        before = (scores > true_scores) | (
            (scores == true_scores) & (np.arange(len(bank)) < labels)
        )
        rank[rows] = np.where(labels[:, 0] >= 0, before.sum(1), len(bank))
    return best, rank


def per_class(label: np.ndarray, rank: np.ndarray, num_classes: int) -> np.ndarray:
    """Accuracy (K,) of every class, NaN for those that do not occur."""
    counted = label >= 0
    count = np.bincount(label[counted], minlength=num_classes)
    correct = np.bincount(label[counted & (rank == 0)], minlength=num_classes)
    return np.divide(correct, count, out=np.full(num_classes, np.nan), where=count > 0)


def _accuracies(
    images: _Images, classes: Classes, bank: np.ndarray, own_bank: np.ndarray
) -> tuple[float, float]:
    """Among ``classes``: by their names' ``bank``, and by those of all classes, ``own``."""
    position = np.full(len(own_bank), -1, np.int64)
    position[list(classes.indices)] = np.arange(len(classes.indices))
    rows = (images.label >= 0) & (position[images.label] >= 0)
    embedding, label = images.embedding[rows], position[images.label[rows]]
    translated, by_own_names = (
        _mean(classify(embedding, label, weights)[1] == 0)
        for weights in (bank, own_bank[list(classes.indices)])
    )
    return translated, by_own_names


def _images(
    predict: Predict, ctx: EvalContext, data: EvaluationData, label: str, num_classes: int
) -> _Images:
    rows: Rows = embed(predict, ctx, data, (IMAGE,), (label,))
    labels, source = rows[label], data.source
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{label!r} is {labels.dtype}{list(labels.shape)}; zero-shot needs int (B,)"
        )
    labels = labels.astype(np.int64)
    if invalid := np.flatnonzero((labels < -1) | (labels >= num_classes)).tolist():
        raise DataError(
            f"{source.info.name}: {len(invalid)} label(s) are no class: outside "
            f"0..{num_classes - 1} (and not -1, unlabelled); one belongs to record "
            f"{source.key(int(rows['_index'][invalid[0]]))!r}. Mend the labels, or give as many "
            "class_names as the data has classes"
        )
    return _Images(rows[IMAGE], labels, rows["_index"])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan
