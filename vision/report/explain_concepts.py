"""Concepts on the page of explanations: what each adds to the answer, to be switched off."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.data.all_records import labels_of
from vision.data.descriptors import read_descriptors
from vision.data.prompts import NAME
from vision.data.source import DataError
from vision.data.sources.folder import Folder
from vision.predict.predictor import Predictor
from vision.probes.concepts import ConceptBottleneck, concept_list, fit_bottleneck
from vision.report.neighbours import SourceImages
from vision.report.numbers import percent
from vision.report.page import Content, data_block, exact, note, table, tag

SHOWN = 12
HOW = (
    "A linear classifier that sees an image only by its cosines with the concepts' texts. What a "
    "concept adds to a class's logit is its score, standardised over the labelled images, times "
    "its weight; with the bias these add up to the logit. Switch concepts off to see what the "
    "answer rests on."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Concepts:
    """A bottleneck, and what embeds for it.

    Attributes:
      model: fitted to labelled images.
      classes: their names.
      vectors: unit vectors float32 (C, D) of the concepts' texts.
      about: what it was fitted to, in words.
    """

    model: ConceptBottleneck
    classes: tuple[str, ...]
    vectors: np.ndarray
    about: str


def fitted_concepts(predictor: Predictor, concepts: str, labelled: str) -> Concepts:
    """Fits a concept bottleneck to a folder of labelled images.

    Args:
      predictor: of a dual encoder.
      concepts: JSON file with a list of concepts for every class, see ``read_descriptors``.
      labelled: folder with a folder per class.

    Raises:
      DataError: concepts or images that cannot be used.
      ConceptError: no concepts are left, or too few images.
      PredictError: the model has no text tower.
    """
    source = Folder(labelled)
    names = source.info.class_names
    texts, _ = concept_list(read_descriptors(concepts, names))
    reader = predictor.zero_shot(texts, NAME).texts
    assert reader is not None  # zero_shot makes one
    vectors = reader.bank
    indices = tuple(range(len(source)))
    keys = tuple(source.key(i) for i in indices)
    images = SourceImages(indices, keys, predictor.preprocessing.mode, source)
    found = predictor.embed(images, on_error="keep")
    kept = np.isfinite(found).all(1)
    if not kept.any():
        raise DataError(f"{labelled}: no image can be read")
    labels = np.asarray(labels_of(source))[kept]
    model = fit_bottleneck(found[kept] @ vectors.T, labels, len(names), texts)
    bad = f"; {int((~kept).sum()):,} could not be read" if not kept.all() else ""
    about = (
        f"{len(texts):,} concepts, fitted to {int(kept.sum()):,} images of {labelled}{bad}; of "
        f"every tenth, held out to choose the penalty, {percent(model.held_out)} were told right"
    )
    return Concepts(model, names, vectors, about)


def shown_concepts(concepts: Concepts, embedding: np.ndarray) -> Markup:
    """The answer for one image and the concepts that it rests on, each with a switch.

    Args:
      concepts: of the page.
      embedding: float32 (D,) of the image.
    """
    model = concepts.model
    raw = (embedding @ concepts.vectors.T)[None]
    terms, logits = model.contributions(raw)[0], model.logits(raw)[0]
    answer = int(logits.argmax())
    order = np.argsort(-np.abs(terms[:, answer]), kind="stable")[:SHOWN]
    rest = logits - terms[order].sum(0)
    rows: list[Sequence[Content]] = [
        (
            tag(
                "label",
                tag("input", type="checkbox", checked=True, data_concept=str(i)),
                " ",
                model.concepts[j],
            ),
            exact(f"{terms[j, answer]:+.2f}", float(terms[j, answer])),
        )
        for i, j in enumerate(order.tolist())
    ]
    data = {
        "classes": list(concepts.classes),
        "terms": np.round(terms[order], 5).tolist(),
        "rest": np.round(rest, 5).tolist(),
    }
    caption = f"The {len(order)} of {len(model.concepts):,} concepts that add most"
    return tag(
        "div",
        tag("h4", "By concepts"),
        tag("p", said(logits, concepts.classes), class_="note", role="status", data_answer=""),
        table(("concept", f"adds to {concepts.classes[answer]}"), rows, caption=caption,
              numeric=(1,)),
        data_block(data),
        class_="concepts",
    )  # fmt: skip


def said(logits: np.ndarray, classes: Sequence[str]) -> str:
    """The three likeliest classes, as the page's script writes them."""
    odds = np.exp(logits - logits.max())
    order = np.argsort(-logits, kind="stable")[:3].tolist()
    return ", ".join(f"{classes[k]} {100 * odds[k] / odds.sum():.1f}%" for k in order)


def about_concepts(concepts: Concepts) -> Markup:
    """What the switches are about, for the top of the page."""
    return tag("div", note(HOW), note(f"{concepts.about}."), class_="stack")
