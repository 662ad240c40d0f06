"""Zero-shot classification by what a class looks like: the mean similarity to its descriptors.

A language model lists for every class c what one sees of it, D(c): "long tail", "furry bodies".
With unit vectors x of an image and t(d) of the sentence "c, which has d",

    s(c, x) = 1 / |D(c)|  sum over d in D(c) of  x . t(d),        y(x) = argmax_c s(c, x)

which is x . m(c) with m(c) the mean of a class's sentences, not made a unit vector again: a class
whose descriptors disagree scores lower. Nothing is trained. The terms of the sum are the
explanation, and a class is edited by editing its list.

Menon and Vondrick, Visual Classification via Description from Large Language Models, 2022; authors'
code: sachit-menon/classify_by_description_release. What their code does and is done here: sentences
join name and descriptor by ", which has"; "which is" before one that begins with "used", and
"which" before "has", "often", "typically", "may" and "can". There "which is" comes before every
descriptor that begins with the letter a, of "antlers" too; here only before the articles. The
baseline is the name alone, as there. The lists come with the config or from a file, since no
language model is asked.

With the name alone as a class's only descriptor, as ``sentences=False`` reads it, the scores are
those of zero-shot classification by ``{}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from papers.classify_by_description.descriptors import class_vectors, sentence
from vision.config.ranges import NonNegative, Positive, checked
from vision.data.descriptors import read_descriptors
from vision.data.prompts import check_names
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Table
from vision.evaluators.image_text.embeddings import IMAGE, check_sizes, embed_texts, finite
from vision.evaluators.image_text.zero_shot import classify
from vision.evaluators.labelled import labelled


@dataclasses.dataclass(frozen=True)
@checked
class DescribedZeroShot:
    """Zero-shot classification by descriptors, beside that by names.

    Yields ``top1`` and, with more than five classes, ``top5`` by descriptors, ``name_top1`` by
    the names alone, ``examples``, ``descriptors`` (of all classes) and, only where there are any,
    ``unlabelled`` and ``nonfinite`` images (both left out). The table ``explanations`` has, for
    images that only descriptors tell right, the similarities of the class's own and of the class
    that the name would have given. ``predict`` gives ``image/embedding`` and ``text/embedding``,
    unit vectors, as of ``ZeroShot``.

    Attributes:
      data: images with ``label``, int (B,), -1 for none.
      tokenizer: that the text tower was trained with.
      descriptors: name of a class to its descriptors, or a JSON file that holds such an object.
      class_names: in label order; empty takes those of the data.
      sentences: descriptors are made ``sentence``s with the name; False reads them as they are.
      text_batch: texts that are embedded at a time; a multiple of the devices.
      explained: how many images the table has at most.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    descriptors: Mapping[str, tuple[str, ...]] | str
    class_names: tuple[str, ...] = ()
    sentences: bool = True
    text_batch: Positive[int] = 256
    explained: NonNegative[int] = 12

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: see ``read_descriptors``; no records, no class names, or texts whose
            embedding is not finite.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        names = tuple(self.class_names or self.data.source.info.class_names)
        check_names(names, f"class names of {self.data.source.info.name}")
        known = read_descriptors(self.descriptors, names)
        texts = [sentence(name, d) if self.sentences else d for name in names for d in known[name]]
        vectors = embed_texts(predict, ctx, self.tokenizer, [*texts, *names], self.text_batch)
        if not finite(vectors).all():
            raise DataError("an embedding of a descriptor is not finite: the text tower gives NaN")
        described, named = vectors[: len(texts)], vectors[len(texts) :]
        test = labelled(predict, ctx, self.data, IMAGE, "label")
        check_sizes(test.x, vectors)
        counts = [len(known[name]) for name in names]
        best, rank = classify(test.x, test.labels, class_vectors(described, counts))
        by_name, name_rank = classify(test.x, test.labels, named)
        yield "top1", float(np.mean(rank < 1))
        if len(names) > 5:
            yield "top5", float(np.mean(rank < 5))
        yield "name_top1", float(np.mean(name_rank < 1))
        yield "examples", len(test.x)
        yield "descriptors", len(texts)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
        mended = np.flatnonzero((rank < 1) & (name_rank > 0))[: self.explained]
        if len(mended):
            similarity = test.x[mended] @ described.T
            pairs = np.stack([best[mended], by_name[mended]], 1)
            yield "explanations", _table(similarity, pairs, known)


def _table(
    similarity: np.ndarray, pairs: np.ndarray, known: Mapping[str, tuple[str, ...]]
) -> Table:
    """Of images and their two classes: every descriptor, the likest first.

    Args:
      similarity: (N, all descriptors in the order of ``known``).
      pairs: int (N, 2), the class by descriptors and the class by names.
      known: descriptors by class, in label order.
    """
    names = tuple(known)
    starts = np.cumsum([0, *(len(known[name]) for name in names)])
    rows: list[tuple[str, ...]] = []
    for image, (values, two) in enumerate(zip(similarity, pairs.tolist(), strict=True)):
        for k, by in zip(two, ("descriptors", "name"), strict=True):
            part = values[starts[k] : starts[k + 1]]
            rows += [
                (str(image), by, names[k], known[names[k]][i], f"{part[i]:.3f}")
                for i in np.argsort(-part, kind="stable").tolist()
            ]
    return Table(("image", "answer by", "class", "descriptor", "similarity"), tuple(rows))
