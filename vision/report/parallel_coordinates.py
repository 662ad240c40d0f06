"""Parallel coordinates: one vertical axis per column, one line per row across them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.report.axes import Axis, fit
from vision.report.charts import SIZE, chart_caption, svg
from vision.report.numbers import is_share
from vision.report.page import note, tag

_LETTERS = 55  # that fit side by side across a telephone
_FEW = 7  # up to so many different values, each has its tick
_WIDE = 30.0  # an axis is logarithmic where positive values span more than this factor


@dataclasses.dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
      name: said when the pointer is on it.
      values: one per column; texts that are numbers count as numbers. None leaves a gap.
      class_: of its colour, ``c0`` to ``c5``, or empty for a muted line.
    """

    name: str
    values: tuple[str | float | None, ...]
    class_: str = ""


def parallel_coordinates(heading: str, columns: Sequence[str], rows: Sequence[Row]) -> Markup:
    """The chart; on a narrow screen the axes lie one below the other.

    A column of numbers has a linear axis, or a logarithmic one where its positive values span more
    than a factor of 30; one with other texts has its values one above the other.
    """
    if not rows or not columns:
        return tag(
            "figure", chart_caption(heading, []), note("Nothing to draw yet."), class_="chart"
        )
    placed, ticks = [], []
    for i, column in enumerate(columns):
        heights, marks = _column(column, [row.values[i] for row in rows])
        placed.append(heights)
        ticks.append(marks)
    label = f"{heading}: {len(rows)} lines over {', '.join(columns)}; the table has all"
    drawings = [
        tag(
            "div",
            _lines(rows, placed, down),
            *_axes(columns, ticks, down),
            class_=kind,
            style=height,
        )
        for kind, down, height in (
            ("parallel across", False, None),
            ("parallel down", True, f"height:{5.2 * len(columns):.1f}em"),
        )
    ]
    return tag(
        "figure",
        chart_caption(heading, []),
        tag("div", *drawings, role="img", aria_label=label),
        class_="chart",
    )


def _lines(rows: Sequence[Row], placed: Sequence[Sequence[float | None]], down: bool) -> Markup:
    """A path per row; ``down`` where axes lie one below the other, each from left to right."""
    n, shapes = len(placed), []
    for i in range(n):
        start, end = _at(i, n, 0.0, down), _at(i, n, 1.0, down)
        shapes.append(tag("path", d=f"M{start}L{end}", class_="axis"))
    # Muted lines first: what stands later lies above.
    for j, row in sorted(enumerate(rows), key=lambda pair: (pair[1].class_ != "", -pair[0])):
        steps, pen_down = [], False
        for i, values in enumerate(placed):
            value = values[j]
            if value is not None:
                steps.append(f"{'L' if pen_down else 'M'}{_at(i, n, value, down)}")
            pen_down = value is not None
        class_ = f"line {row.class_}".strip() if row.class_ else "line muted"
        shapes.append(tag("path", tag("title", row.name), d="".join(steps), class_=class_))
    return svg(shapes, "linear")


def _axes(
    columns: Sequence[str], ticks: Sequence[Sequence[tuple[float, str]]], down: bool
) -> list[Markup]:
    """Headings and ticks, as texts beside the drawing, which is stretched."""
    n, spans = len(columns), []
    for i, (column, marks) in enumerate(zip(columns, ticks, strict=True)):
        along = 100 * _along(i, n, down)
        side, other = ("top", "left") if down else ("left", "bottom")
        name = column if down else _short(column)
        spans.append(tag("span", name, class_="head", style=f"{side}:{along:.2f}%", title=column))
        end = 0.0
        for position, text in sorted(marks):
            text = _short(text, 12)
            room = (len(text) + 1) / _LETTERS
            if down and position - room / 2 < end:
                continue
            end = position + room / 2
            kind = "tick last" if i == n - 1 else "tick"
            place = f"{side}:{along:.2f}%;{other}:{100 * position:.2f}%"
            spans.append(tag("span", text, class_=kind, style=place))
    return spans


def _along(i: int, n: int, down: bool) -> float:
    if down:
        return (i + 0.5) / n
    return i / (n - 1) if n > 1 else 0.5


def _at(i: int, n: int, value: float, down: bool) -> str:
    along = _along(i, n, down)
    x, y = (value, along) if down else (along, 1 - value)
    return f"{SIZE * x:.1f} {SIZE * y:.1f}"


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else "..." + text[3 - most :]


def _column(
    name: str, values: Sequence[str | float | None]
) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Heights, 0..1, of the values of a column, and its ticks."""
    known = [value for value in values if value is not None]
    numbers = [_number(value) for value in known]
    if not known:
        return [None] * len(values), []
    if any(value is None for value in numbers):
        texts = list(dict.fromkeys(map(str, known)))
        place = {text: (i + 0.5) / len(texts) for i, text in enumerate(texts)}
        return [None if v is None else place[str(v)] for v in values], [
            (height, text) for text, height in place.items()
        ]
    array = np.asarray(numbers, np.float64)
    axis = fit(array, log=_is_log(array), percent=is_share(name), pad=0.08)
    different = sorted(set(array.tolist()))
    marks = axis.ticks()
    if len(different) <= _FEW and not is_share(name):
        marks = [(_place(axis, value), f"{value:g}") for value in different]
    heights = [None if v is None else _place(axis, float(v)) for v in values]
    return heights, [(p, text) for p, text in marks if 0 <= p <= 1]


def _place(axis: Axis, value: float) -> float:
    return float(axis.place(np.asarray([value], np.float64))[0])


def _is_log(array: np.ndarray) -> bool:
    return bool((array > 0).all() and array.max() > _WIDE * array.min())


def _number(value: str | float) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if np.isfinite(found) else None
