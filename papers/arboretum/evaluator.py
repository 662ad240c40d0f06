"""Zero-shot classification of species, asked at every rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import softmax

from papers.arboretum.taxa import Kind, read_taxa
from vision.config.ranges import Finite, Positive, checked
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import IMAGE, check_sizes, embed_texts, finite
from vision.evaluators.labelled import labelled


@dataclasses.dataclass(frozen=True)
@checked
class Ranks:
    """Accuracy at every rank of the species, in three ways.

    Yields ``top1`` of the species, and for every rank ``<rank>/of_species``, whether the likeliest
    species is of the right taxon, ``<rank>/summed``, whether the taxon whose species' probabilities
    add up to most is right, and ``<rank>/named``, whether the name of the right taxon is the most
    similar among names of that rank; ``examples`` and, only where there are any, ``unlabelled``
    and ``nonfinite`` images (both left out). A taxon is known by its path from the root, and those
    of one rank that share a name share its ``named`` answer, which is then right for either.

    ``of_species`` can only fall towards the species, since whoever is right there is right above;
    ``summed`` need not: two genera of one family may each be less likely than a third family's.

    ``predict`` gives ``image/embedding`` and ``text/embedding``, unit vectors, as of ``ZeroShot``.

    Attributes:
      data: images with ``label``, int (B,), number of a species; -1 for none.
      tokenizer: that the text tower was trained with.
      taxa, class_names: see ``read_taxa``.
      kind: text of a species.
      template: of the name of a taxon.
      temperature: of the softmax over species whose probabilities are summed.
      text_batch: texts that are embedded at a time; a multiple of the devices.
    """

    data: EvaluationData
    tokenizer: Tokenizer
    taxa: Mapping[str, Mapping[str, str]] | str
    class_names: tuple[str, ...] = ()
    kind: Kind = "sci"
    template: str = "a photo of {}."
    temperature: Positive[Finite] = 0.01
    text_batch: Positive[int] = 256

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: see ``read_taxa``; labels that are no species, no records, or texts whose
            embedding is not finite.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        taxa = read_taxa(self.taxa, self.class_names)
        ranks = [rank for rank, _ in taxa[0].ranks]
        names = [sorted({taxon.ranks[i][1] for taxon in taxa}) for i in range(len(ranks))]
        texts = [taxon.text(self.kind) for taxon in taxa]
        said = [self.template.replace("{}", name) for part in names for name in part]
        vectors = embed_texts(predict, ctx, self.tokenizer, [*texts, *said], self.text_batch)
        if not finite(vectors).all():
            raise DataError("an embedding of a text is not finite: the text tower gives NaN")
        test = labelled(predict, ctx, self.data, IMAGE, "label")
        check_sizes(test.x, vectors)
        if test.labels.max(initial=0) >= len(taxa):
            raise DataError(f"label {test.labels.max()} is none of the {len(taxa)} species")
        cosines = test.x @ vectors.T
        species = cosines[:, : len(taxa)]
        probability = softmax(species / self.temperature, 1)
        answer = species.argmax(1)
        yield "top1", float(np.mean(answer == test.labels))
        lines: dict[str, list[float]] = {"of_species": [], "summed": [], "named": []}
        start = len(taxa)
        for i, rank in enumerate(ranks):
            paths = [tuple(name for _, name in taxon.ranks[: i + 1]) for taxon in taxa]
            nodes = {path: n for n, path in enumerate(dict.fromkeys(paths))}
            node = np.array([nodes[path] for path in paths])
            true = node[test.labels]
            summed = np.stack([probability[:, node == n].sum(1) for n in range(len(nodes))], 1)
            own = np.array([names[i].index(path[-1]) for path in paths])
            named = cosines[:, start : start + len(names[i])].argmax(1)
            start += len(names[i])
            right = {
                "of_species": node[answer] == true,
                "summed": summed.argmax(1) == true,
                "named": named == own[test.labels],
            }
            for way, value in right.items():
                lines[way].append(float(value.mean()))
                yield f"{rank}/{way}", lines[way][-1]
        yield "examples", len(test.x)
        for name in ("unlabelled", "nonfinite"):
            if count := getattr(test, name):
                yield name, count
        x = np.arange(1.0, len(ranks) + 1)
        drawn = tuple(Line(way, x, np.asarray(line)) for way, line in lines.items())
        yield "ranks", Curve(drawn, "rank, from the root", "accuracy")
