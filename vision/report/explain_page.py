"""The page of heat maps: per image, and on average over the images of each class."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from vision.data.source import DataError
from vision.evaluate.figures import Curve, Line
from vision.evaluators.image_text.embeddings import spread
from vision.predict.explain import Explanation
from vision.predict.images import Images
from vision.predict.predictor import Predictor
from vision.predict.results import Prediction
from vision.report.charts import line_chart
from vision.report.explain_concepts import (
    Concepts,
    about_concepts,
    fitted_concepts,
    shown_concepts,
)
from vision.report.explain_maps import METHODS, RANDOM, ClassMaps, class_maps, mean_areas
from vision.report.neighbours import Neighbours, training_images
from vision.report.numbers import percent
from vision.report.page import Content, exact, inline_picture, join, note, page, table, tag

NEIGHBOURS = 4
_SIDE_PX = 224
HOW = (
    "Red is where a method sees evidence, relative to the map's maximum. Grad-CAM weighs the last "
    "maps of features; relevance divides the class's score among the pixels, layer by layer; the "
    "gradient is how fast the score changes with a pixel; integrated gradients add that up on the "
    "way from the mean colour to the image."
)
JUDGE = (
    "Deletion: the probability of the class while pixels are replaced by the mean colour, the "
    "map's first ones first; a good map makes it fall soon, so that the area is small. Insertion: "
    "while they are put back; a good map has a large area. A map that is no better than the random "
    "order says little about this model."
)


@dataclasses.dataclass(frozen=True, eq=False)
class ExplainedImage:
    """One image.

    Attributes:
      file: its path.
      seen: uint8 (H, W, C), the part that the model reads.
      predicted: its probabilities.
      classes: the maps of its likeliest classes.
      neighbours: the nearest training images, see ``Neighbours.of``.
      embedding: float32 (D,), where there are concepts.
    """

    file: str
    seen: np.ndarray
    predicted: Prediction
    classes: tuple[ClassMaps, ...]
    neighbours: list[dict[str, Any]]
    embedding: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """What the page shows.

    Attributes:
      source: of the weights, in words.
      images: those that could be read.
      notes: what was left out, and why.
      training: about the training images.
      concepts: that the answers rest on; None where none were given.
    """

    source: str
    images: tuple[ExplainedImage, ...]
    notes: tuple[str, ...]
    training: str
    concepts: Concepts | None = None


def explain_images(
    predictor: Predictor,
    images: str,
    *,
    limit: int,
    top: int,
    steps: int,
    training: int,
    concepts: tuple[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Explained:
    """Computes all maps.

    Args:
      predictor: the model.
      images: a file or folder.
      limit: most images, evenly spread.
      top: classes of each image.
      steps: of the curves, which the likeliest class has; 0 for none.
      training: most training images; 0 for none.
      concepts: file of concepts and folder of labelled images, see ``fitted_concepts``; None for
        no concepts.
      say: is told how far it is.

    Raises:
      DataError: no image, or none that can be read.
      PredictError: a model without classes, or with concepts one that is no dual encoder.
      ConceptError: no concepts are left, or too few images.
    """
    bottleneck = fitted_concepts(predictor, *concepts) if concepts else None
    source, left_out = predictor.gather(images)
    notes = [left_out] if left_out else []
    chosen = spread(min(limit, len(source)), len(source)).tolist()
    if len(chosen) < len(source):
        notes.append(f"{len(chosen):,} of {len(source):,} images, evenly spread; --limit has more.")
    found: list[ExplainedImage] = []
    items: list[Any] = []
    for place, index in enumerate(chosen):
        one = Images((source.items[index],), (source.names[index],), source.mode)
        [row] = predictor.predict(one, on_error="keep")
        if row.error is not None:
            notes.append(f"{row.file}: {row.error}")
            continue
        names = list(row.top(top))
        maps = [class_maps(predictor, one, x, 0 if i else steps) for i, x in enumerate(names)]
        maps = [dataclasses.replace(m, probability=row.probabilities[m.class_name]) for m in maps]
        seen = predictor.single(one)[0]
        items.append(source.items[index])
        found.append(ExplainedImage(row.file, seen, row, tuple(maps), []))
        say(f"{place + 1} of {len(chosen)}: {row.file}: {names[0]}")
    if not found:
        raise DataError(f"{images}: no image can be read: {'; '.join(notes)}")
    names = tuple(each.file for each in found)
    seen_images = Images(tuple(items), names, source.mode)
    if bottleneck is not None:
        vectors = predictor.embed(seen_images)
        found = [
            dataclasses.replace(each, embedding=row)
            for each, row in zip(found, vectors, strict=True)
        ]
    about = "Training images were not looked for."
    if training:
        neighbours = training_images(predictor, training)
        if isinstance(neighbours, Neighbours):
            vectors = predictor.embed(seen_images)
            nearest = neighbours.of(vectors, NEIGHBOURS)
            found = [
                dataclasses.replace(each, neighbours=beside)
                for each, beside in zip(found, nearest, strict=True)
            ]
            about = f"Looked for among {neighbours.about}, by the cosine of embeddings."
        else:
            about = f"There are none: {neighbours}."
    return Explained(predictor.source, tuple(found), tuple(notes), about, bottleneck)


def render(explained: Explained, name: str) -> str:
    """The whole HTML document.

    Args:
      explained: what it shows.
      name: of the run.
    """
    images = explained.images
    failed = {
        (method, reason)
        for each in images
        for maps in each.classes
        for method, reason in maps.failed.items()
    }
    notes = [note(each, warning=True) for each in explained.notes]
    notes += [note(f"{method}: {reason}", warning=True) for method, reason in sorted(failed)]
    sections: list[tuple[str, str, Content]] = [
        ("about", "", join([*notes, note(HOW)])),
        ("judge", "Which map to believe", _judged(images)),
        ("classes", "Per class", _per_class(images)),
        ("concepts", "Concepts", about_concepts(explained.concepts) if explained.concepts else ""),
        ("images", "Per image", tag("div", *(_image(each, explained.concepts) for each in images),
                                    note(explained.training), class_="stack")),
    ]  # fmt: skip
    return page(
        f"What {name} sees",
        f"{explained.source} · {len(images):,} images",
        [each for each in sections if each[2]],
        parts=("page", "concepts") if explained.concepts else ("page",),
    )


def _judged(images: Sequence[ExplainedImage]) -> Content:
    first = [each.classes[0] for each in images if each.classes[0].curves]
    if not first:
        return ""
    areas = mean_areas(first)
    rows = [
        (name, exact(f"{low:.3f}", low), exact(f"{high:.3f}", high))
        for name, (low, high) in areas.items()
    ]
    charts = []
    for what, part in (("Deletion", 0), ("Insertion", 1)):
        lines = []
        for name in areas:
            curves = [each.curves[name][part] for each in first if name in each.curves]
            mean = np.asarray(np.mean(curves, 0, dtype=np.float64))
            lines.append(Line(name, np.linspace(0, 1, len(mean)), mean))
        curve = Curve(tuple(lines), "share of pixels", "probability")
        charts.append(line_chart(what, curve, percent_axis=True, smooth=False))
    caption = f"Mean area under the curves of {len(first):,} images, of their likeliest class"
    return tag(
        "div",
        note(JUDGE),
        tag("div", *charts, class_="cards"),
        table(("map", "deletion, low is good", "insertion, high is good"), rows,
              caption=caption, numeric=(1, 2)),
        class_="stack",
    )  # fmt: skip


def _per_class(images: Sequence[ExplainedImage]) -> Content:
    """The mean map of the images that were predicted as a class: what it tends to look at."""
    groups: dict[str, list[ExplainedImage]] = {}
    for each in images:
        groups.setdefault(each.classes[0].class_name, []).append(each)
    parts = []
    for name in sorted(groups):
        members = groups[name]
        maps = [each.classes[0] for each in members]
        mean_image = _mean([each.seen.astype(np.float32) for each in members])
        figures = [_figure(_encoded(mean_image), "mean image", f"Mean of images said to be {name}")]
        areas = mean_areas(maps)
        for method in METHODS:
            heats = [each.heat[method] for each in maps if method in each.heat]
            if heats:
                text = _areas(method, areas.get(method))
                shown = _overlay(mean_image, _mean(heats))
                figures.append(_figure(shown, text, f"Mean {method} map for {name}"))
        count = f"{name}: {len(members):,} image{'s' if len(members) > 1 else ''}"
        parts.append(tag("div", tag("h3", count), tag("div", *figures, class_="gallery"),
                         class_="card"))  # fmt: skip
    about = note("Of the images whose likeliest class it is: their mean, and the mean of the maps.")
    return tag("div", about, *parts, class_="stack")


def _image(each: ExplainedImage, concepts: Concepts | None) -> Markup:
    said = ", ".join(f"{name} {percent(p)}" for name, p in each.predicted.top(3).items())
    rows: list[Content] = [tag("h3", each.file), note(said)]
    for maps in each.classes:
        rows.append(tag("h4", f"For {maps.class_name} ({percent(maps.probability)})"))
        figures = [_figure(_encoded(each.seen), "as the model reads it", f"{each.file}")]
        for method, heat in maps.heat.items():
            areas = None
            if method in maps.curves:
                areas = mean_areas([maps])[method]
            alt = f"{method} map of {each.file} for {maps.class_name}"
            figures.append(_figure(_overlay(each.seen, heat), _areas(method, areas), alt))
        rows.append(tag("div", *figures, class_="gallery"))
    if RANDOM in each.classes[0].curves:
        low, high = mean_areas(each.classes[:1])[RANDOM]
        rows.append(note(f"In random order: deletion {low:.2f}, insertion {high:.2f}."))
    if concepts is not None and each.embedding is not None:
        rows.append(shown_concepts(concepts, each.embedding))
    if each.neighbours:
        figures = [
            _figure(
                inline_picture(item["png"]),
                f"{item['label'] or 'no label'}, cosine {item['cosine']:.3f}",
                f"Training image {item['key']}",
                item["key"],
            )
            for item in each.neighbours
        ]
        rows += [tag("h4", "Nearest training images"), tag("div", *figures, class_="gallery")]
    return tag("div", *rows, class_="card")


def _areas(method: str, areas: tuple[float, float] | None) -> str:
    return method if areas is None else f"{method}: del. {areas[0]:.2f}, ins. {areas[1]:.2f}"


def _figure(address: str, caption: str, alt: str, key: str = "") -> Markup:
    below = tag("span", key, class_="key") if key else ""
    return tag("figure", tag("img", src=address, alt=alt), tag("figcaption", caption, below))


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Of arrays of one shape; of different ones, that of the first shape only."""
    shape = arrays[0].shape
    return np.mean([x for x in arrays if x.shape == shape], 0)


def _overlay(image: np.ndarray, heat: np.ndarray) -> str:
    peak = heat.max()
    shown = Explanation("", "", 0.0, heat / peak if peak > 0 else heat, image)
    return _address(shown.overlay())


def _encoded(image: np.ndarray) -> str:
    pixels = np.rint(image).clip(0, 255).astype(np.uint8)
    if pixels.shape[2] != 3:
        pixels = pixels.mean(2).astype(np.uint8)
    return _address(Image.fromarray(pixels))


def _address(image: Image.Image) -> str:
    scale = _SIDE_PX / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.convert("RGB").resize(size, how).save(buffer, "JPEG", quality=88)
    return inline_picture(buffer.getvalue(), "jpeg")
