"""Classification without a list of classes, measured by a list that the model is not shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from papers.cased.method import choose, cluster_accuracy, retrieve, word_overlap
from papers.cased.words import words
from vision.config.ranges import Fraction, NonNegative, Positive, checked
from vision.data import files
from vision.data.prompts import NAME, check_names, check_templates
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import IMAGE, check_sizes, spread
from vision.evaluators.image_text.zero_shot import classify, text_bank
from vision.evaluators.labelled import labelled


@dataclasses.dataclass(frozen=True)
@checked
class VocabularyFree:
    """CaSED: images are named by words of captions; class names only say whether that is right.

    Yields ``cluster_accuracy``, ``semantic_iou`` and ``semantic_similarity`` of the given names
    and those of the classes; ``likest_iou``, the semantic IoU of the likest of all words that any
    image may be called; ``closed_top1``, zero-shot accuracy with the list of classes, an upper
    bound; ``reachable``, the share of images whose candidates have a word of their class's name;
    ``absent_classes``, only where there are any, of whose names no caption has a word;
    ``vocabulary`` (words), ``captions``, ``examples``, and, only where there are any,
    ``unlabelled`` and ``nonfinite`` images (both left out). The table ``named`` has images spread
    over the data. ``predict`` gives ``image/embedding`` and ``text/embedding``, unit vectors, as
    of ``ZeroShot``.

    Attributes:
      data: images with ``label``, int (B,), -1 for none.
      tokenizer: that the text tower was trained with.
      captions: the database; empty ones are skipped, and equal ones count once.
      captions_file: with a caption on every line; instead of ``captions``.
      templates: sentences with ``{}`` in which words and class names are read, averaged.
      class_names: in label order; empty takes those of the data.
      retrieved: K, captions that an image is given.
      alpha: weight of the image beside the captions' centroid, 0..1.
      scale: s of the softmax over candidates.
      text_batch: texts that are embedded at a time; a multiple of the devices.
      shown: how many images the table has at most.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    captions: tuple[str, ...] = ()
    captions_file: str = ""
    templates: tuple[str, ...] = NAME
    class_names: tuple[str, ...] = ()
    retrieved: Positive[int] = 10
    alpha: Fraction = 0.7
    scale: Positive[float] = 1 / 0.07
    text_batch: Positive[int] = 256
    shown: NonNegative[int] = 24

    def __post_init__(self) -> None:
        check_templates(self.templates)
        if bool(self.captions) == bool(self.captions_file):
            raise ValueError("give the database as captions or as captions_file, one of the two")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, no class names, a file that cannot be read, fewer captions than
            ``retrieved``, no
            caption with a word of any class, or texts whose embedding is not finite.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        where = self.captions_file or "captions"
        told = _lines(self.captions_file) if self.captions_file else self.captions
        captions = tuple(dict.fromkeys(text for text in told if text.strip()))
        if len(captions) < self.retrieved:
            raise DataError(
                f"{where} has {len(captions)} captions: fewer than retrieved={self.retrieved}; "
                "give more captions, or retrieve fewer"
            )
        caption_words = [words(caption) for caption in captions]
        called = [words(name) for name in names]
        known = {word for each in caption_words for word in each}
        absent = [name for name, own in zip(names, called, strict=True) if not known & set(own)]
        if len(absent) == len(names):
            raise DataError(
                f"{where}: no caption has a word of {absent[0]!r} or of any other class, so that "
                "none could be named; give captions of what the images show"
            )

        def bank(texts: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
            return text_bank(predict, ctx, self.tokenizer, templates, texts, self.text_batch)

        texts = bank(captions, NAME)
        test = labelled(predict, ctx, self.data, IMAGE, "label")
        check_sizes(test.x, texts)
        of = retrieve(test.x, texts, caption_words, self.retrieved)
        vectors, class_vectors = bank(of.vocabulary, self.templates), bank(names, self.templates)
        best, sure = choose(test.x, of, vectors, self.alpha, self.scale)

        def overlap(given: np.ndarray) -> float:
            pairs = zip(given.tolist(), test.labels.tolist(), strict=True)
            return float(np.mean([word_overlap([of.vocabulary[i]], called[k]) for i, k in pairs]))

        yield "cluster_accuracy", cluster_accuracy(test.labels, best)
        yield "semantic_iou", overlap(best)
        cosines = np.sum(vectors[best] * class_vectors[test.labels], 1)
        yield "semantic_similarity", float(cosines.mean())
        yield "likest_iou", overlap(classify(test.x, test.labels, vectors)[0])
        rank = classify(test.x, test.labels, class_vectors)[1]
        yield "closed_top1", float(np.mean(rank < 1))
        true = [called[k] for k in test.labels.tolist()]
        reachable = [
            any(of.vocabulary[i] in name for i in own)
            for own, name in zip(of.chosen, true, strict=True)
        ]
        yield "reachable", float(np.mean(reachable))
        if absent:
            yield "absent_classes", len(absent)
        yield "vocabulary", len(of.vocabulary)
        yield "captions", len(captions)
        yield "examples", len(test.x)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
        if self.shown:
            rows = [
                (
                    names[test.labels[i]],
                    of.vocabulary[best[i]],
                    float(sure[i]),
                    captions[of.nearest[i, 0]],
                )
                for i in spread(self.shown, len(test.x)).tolist()
            ]
            yield "named", Table(("class", "name", "probability", "likest caption"), tuple(rows))


def _lines(path: str) -> list[str]:
    try:
        return files.read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from error
