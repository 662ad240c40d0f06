"""What an evaluator yields besides numbers: figures as data, drawn elsewhere.

Every figure is a frozen dataclass of numpy arrays, strings and bytes that goes to JSON and back
without loss. Numbers that JSON cannot hold are written as the strings ``"nan"``, ``"inf"`` and
``"-inf"``, so that the files stay valid for every reader.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each class was taken for each other class.

    Attributes:
      counts: (K, K) int64, row = true class, column = predicted class.
      class_names: K names in label order.
    """

    counts: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if self.counts.shape != (k, k):
            raise ValueError(
                f"counts has shape {self.counts.shape}; {k} class_names need ({k}, {k})"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, bin by bin.

    Attributes:
      edges: (M + 1,) float, ascending; bin ``i`` holds confidences in
        ``(edges[i], edges[i + 1]]`` (the first one also its lower edge).
      confidence: (M,) float, mean confidence per bin, NaN where the bin is empty.
      accuracy: (M,) float, share of right answers per bin, NaN where the bin is empty.
      count: (M,) int64, examples per bin.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    def __post_init__(self) -> None:
        bins = len(self.count)
        shapes = (self.edges.shape, self.confidence.shape, self.accuracy.shape)
        if shapes != ((bins + 1,), (bins,), (bins,)):
            raise ValueError(
                f"edges, confidence and accuracy have shapes {shapes}; {bins} bins need "
                f"({bins + 1},), ({bins},) and ({bins},)"
            )


@dataclasses.dataclass(frozen=True)
class Picture:
    """One record with the answer it got.

    Attributes:
      index: position in its source.
      key: name of the record in its source.
      label: name of the true class.
      prediction: name of the predicted class.
      score: of the prediction; what it is, ``Gallery`` says.
      png: PNG file; empty when there is no picture.
      note: why there is no picture; empty when there is one.
      group: name of the group it belongs to; empty for none.
    """

    index: int
    key: str
    label: str
    prediction: str
    score: float
    png: bytes = b""
    note: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Records to look at, in the order to show them.

    Attributes:
      items: the records.
      score: what their scores are: the predicted class's ``probability``, 0..1, or a
        ``similarity``.
    """

    items: tuple[Picture, ...]
    score: Literal["probability", "similarity"] = "probability"

    def __post_init__(self) -> None:
        if self.score not in ("probability", "similarity"):
            raise ValueError(f"score={self.score!r}, but it is 'probability' or 'similarity'")


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """A named polyline: ``x`` and ``y`` are (N,) float; NaN breaks the line.

    Attributes:
      name: of the line, in the legend.
      x: (N,) float.
      y: (N,) float; NaN breaks the line.
    """

    name: str
    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.x.shape != self.y.shape:
            raise ValueError(
                f"line {self.name!r}: x {self.x.shape} and y {self.y.shape} must be 1-D and equal"
            )


@dataclasses.dataclass(frozen=True)
class Curve:
    """Lines over one pair of axes.

    Attributes:
      lines: at least one.
      x_label: of the horizontal axis, with its unit.
      y_label: of the vertical axis, with its unit.
    """

    lines: tuple[Line, ...]
    x_label: str
    y_label: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts and numbers.

    Attributes:
      columns: headings.
      rows: cells, as many as there are columns; None where there is no value.
      caption: says what the table shows.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {i} of rows has {len(row)} cells for {len(self.columns)} columns"
                )


Figure = ConfusionMatrix | Reliability | Gallery | Curve | Table


def to_json(figure: Figure) -> dict[str, Any]:
    """``figure`` as plain lists, numbers and strings, with its type under ``kind``.

    A confusion matrix is written as its cells that are not zero,
    ``[true class, predicted class, count]``: a thousand classes stay a small file.
    """
    match figure:
        case ConfusionMatrix():
            rows, columns = np.nonzero(figure.counts)
            cells = zip(
                rows.tolist(), columns.tolist(), figure.counts[rows, columns].tolist(), strict=True
            )
            return {
                "kind": "confusion_matrix",
                "class_names": list(figure.class_names),
                "cells": [list(cell) for cell in cells],
            }
        case Reliability():
            return {
                "kind": "reliability",
                "edges": _numbers(figure.edges),
                "confidence": _numbers(figure.confidence),
                "accuracy": _numbers(figure.accuracy),
                "count": figure.count.tolist(),
            }
        case Gallery():
            items = []
            for picture in figure.items:
                item = dataclasses.asdict(picture)
                item["png"] = base64.b64encode(picture.png).decode("ascii")
                item["score"] = _number(picture.score)
                items.append(item)
            return {"kind": "gallery", "score": figure.score, "items": items}
        case Curve():
            return {
                "kind": "curve",
                "x_label": figure.x_label,
                "y_label": figure.y_label,
                "lines": [
                    {"name": line.name, "x": _numbers(line.x), "y": _numbers(line.y)}
                    for line in figure.lines
                ],
            }
        case Table():
            rows = [[_cell(value) for value in row] for row in figure.rows]
            columns, caption = list(figure.columns), figure.caption
            return {"kind": "table", "columns": columns, "rows": rows, "caption": caption}
    raise TypeError(f"{type(figure).__name__} is not a figure")


def from_json(data: Mapping[str, Any]) -> Figure:
    """The figure that ``to_json`` wrote.

    Raises:
      ValueError: ``data`` is not a figure; the message names the kind and the missing key.
    """
    kind = data.get("kind")
    try:
        match kind:
            case "confusion_matrix":
                names = tuple(str(name) for name in data["class_names"])
                counts = np.zeros((len(names), len(names)), np.int64)
                for true, predicted, count in data["cells"]:
                    counts[true, predicted] = count
                return ConfusionMatrix(counts, names)
            case "reliability":
                return Reliability(
                    _array(data["edges"]),
                    _array(data["confidence"]),
                    _array(data["accuracy"]),
                    np.asarray(data["count"], np.int64),
                )
            case "gallery":
                items = tuple(_picture(item) for item in data["items"])
                return Gallery(items, data.get("score", "probability"))
            case "curve":
                lines = tuple(
                    Line(str(line["name"]), _array(line["x"]), _array(line["y"]))
                    for line in data["lines"]
                )
                return Curve(lines, str(data["x_label"]), str(data["y_label"]))
            case "table":
                rows = tuple(tuple(_value(cell) for cell in row) for row in data["rows"])
                columns = tuple(str(name) for name in data["columns"])
                return Table(columns, rows, str(data.get("caption", "")))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"broken figure of kind {kind!r}: {error!r}") from error
    raise ValueError(
        f"unknown kind of figure {kind!r}; known are confusion_matrix, reliability, gallery, "
        "curve, table"
    )


def _picture(item: Mapping[str, Any]) -> Picture:
    return Picture(
        index=int(item["index"]),
        key=str(item["key"]),
        label=str(item["label"]),
        prediction=str(item["prediction"]),
        # Stored evaluations may have it under the name probability.
        score=float(item["score"] if "score" in item else item["probability"]),
        png=base64.b64decode(item["png"], validate=True),
        note=str(item["note"]),
        group=str(item.get("group", "")),
    )


def _cell(value: str | float | None) -> Any:
    # A text stays apart from a number that JSON has to write as one.
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    return value.item() if isinstance(value, np.generic) else value


def _value(cell: Any) -> str | float | None:
    if isinstance(cell, Mapping):
        return float(cell["number"])
    if cell is None or isinstance(cell, str | int | float):
        return cell
    raise TypeError(f"a cell is {type(cell).__name__}, not a text or a number")


def _number(x: float) -> float | str:
    x = float(x)
    return x if math.isfinite(x) else str(x)


def _numbers(x: np.ndarray) -> list[float | str]:
    return [_number(value) for value in x.tolist()]


def _array(values: Iterable[float | str]) -> np.ndarray:
    return np.asarray([float(value) for value in values], np.float64)
