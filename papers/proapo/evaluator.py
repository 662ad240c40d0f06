"""Zero-shot classification with texts that a few labelled images have found (ProAPO)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from papers.proapo.method import Search, optimise
from vision.config.ranges import Positive, checked
from vision.data.descriptors import read_descriptors
from vision.data.prompts import check_names, check_templates, load_templates, prompts
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import (
    IMAGE,
    check_sizes,
    embed_texts,
    finite,
    normalised,
)
from vision.evaluators.image_text.zero_shot import classify
from vision.evaluators.labelled import labelled


@dataclasses.dataclass(frozen=True)
@checked
class OptimizedZeroShot:
    """Zero-shot classification by templates and descriptions found on labelled images.

    Yields ``top1`` by what both stages found, ``templates_top1`` after the first stage,
    ``equal_top1`` by the mean of all texts, ``single_top1`` by the first template alone,
    ``fitness``, ``templates`` and ``descriptions`` (how many were taken), ``shots`` (images that
    were searched with), ``examples``, and, only where there are any, ``unlabelled`` and
    ``nonfinite`` test images (both left out). The table ``texts`` has what was taken. ``predict``
    gives ``image/embedding`` and ``text/embedding``, unit vectors, as of ``ZeroShot``.

    Attributes:
      data: images with ``label``, int (B,), -1 for none, that are asked.
      train: images with ``label`` to search with; of every class the first ``shots`` count.
      tokenizer: that the text tower was trained with.
      templates: sentences with ``{}`` where the class name belongs.
      templates_file: with templates, one per line or a JSON list; instead of ``templates``.
      descriptors: name of a class to its descriptions, whole sentences, or a JSON file that holds
        such an object.
      search: weights and numbers of candidates.
      class_names: in label order; empty takes those of the data.
      shots: images of a class.
      text_batch: texts that are embedded at a time; a multiple of the devices.
      seed: of the search.
    """

    data: EvaluationData
    train: EvaluationData
    tokenizer: Tokenizer
    descriptors: Mapping[str, tuple[str, ...]] | str
    search: Search
    templates: tuple[str, ...] = ("{}",)
    templates_file: str = ""
    class_names: tuple[str, ...] = ()
    shots: Positive[int] = 1
    text_batch: Positive[int] = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_templates(self.templates)

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` and ``train`` once.

        Raises:
          DataError: see ``read_descriptors``; no records, no class names, a class without an image
            in ``train``, or texts whose embedding is not finite.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        templates = load_templates(self.templates_file) if self.templates_file else self.templates
        known = read_descriptors(self.descriptors, names)
        asked = prompts(templates, names)
        told = [text for name in names for text in known[name]]
        vectors = embed_texts(predict, ctx, self.tokenizer, [*asked, *told], self.text_batch)
        if not finite(vectors).all():
            raise DataError("an embedding of a text is not finite: the text tower gives NaN")
        bank = vectors[: len(asked)].reshape(len(names), len(templates), -1).swapaxes(0, 1)
        described = vectors[len(asked) :]
        describes = np.repeat(np.arange(len(names)), [len(known[name]) for name in names])
        few = labelled(predict, ctx, self.train, IMAGE, "label")
        check_sizes(few.x, vectors)
        rows = _first(few.labels, self.shots, names, self.train.source.info.name)
        test = labelled(predict, ctx, self.data, IMAGE, "label")
        found = optimise(
            bank, described, describes, few.x[rows], few.labels[rows], self.search, self.seed
        )
        every = bank.sum(0)
        np.add.at(every, describes, described)

        def top1(classes: np.ndarray) -> float:
            return float(np.mean(classify(test.x, test.labels, classes)[1] < 1))

        yield "top1", top1(found.classes)
        yield "templates_top1", top1(found.by_templates)
        yield "equal_top1", top1(normalised(every))
        yield "single_top1", top1(bank[0])
        yield "fitness", found.description_fitness[-1]
        yield "templates", int(found.templates.sum())
        yield "descriptions", int(found.descriptions.sum())
        yield "shots", len(rows)
        yield "examples", len(test.x)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
        taken = [("every class", templates[i]) for i in np.flatnonzero(found.templates)]
        taken += [(names[describes[i]], told[i]) for i in np.flatnonzero(found.descriptions)]
        yield "texts", Table(("class", "text"), tuple(taken))


def _first(labels: np.ndarray, shots: int, names: tuple[str, ...], where: str) -> np.ndarray:
    """Rows of the first ``shots`` images of every class, by class."""
    rows = [np.flatnonzero(labels == k)[:shots] for k in range(len(names))]
    if absent := [name for name, own in zip(names, rows, strict=True) if not len(own)]:
        raise DataError(
            f"{where} has no image of {absent[0]!r}, nor of {len(absent) - 1} other classes, to "
            "search with: give one image of each"
        )
    return np.concatenate(rows)
