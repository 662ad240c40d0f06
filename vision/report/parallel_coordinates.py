"""Parallel coordinates: one vertical axis per column, one line per row across them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.report.axes import Axis, fit
from vision.report.charts import chart_caption
from vision.report.numbers import is_share
from vision.report.page import note, scrolling, tag

_STEP, _TOP, _HEIGHT, _BOTTOM = 170, 34, 260, 16
_SIDE = 60  # room for the numbers left of the first axis and right of the last
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
    """The chart; it scrolls sideways where the screen is narrow.

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
    width, height = 2 * _SIDE + _STEP * (len(columns) - 1), _TOP + _HEIGHT + _BOTTOM
    shapes = []
    # Muted lines first: what stands later lies above.
    for j, row in sorted(enumerate(rows), key=lambda pair: (pair[1].class_ != "", -pair[0])):
        steps, pen_down = [], False
        for i, heights in enumerate(placed):
            if heights[j] is not None:
                steps.append(f"{'L' if pen_down else 'M'}{_x(i)} {_y(heights[j])}")
            pen_down = heights[j] is not None
        title = tag("title", row.name)
        class_ = f"line {row.class_}".strip() if row.class_ else "line muted"
        shapes.append(tag("path", title, d="".join(steps), class_=class_))
    for i, (column, marks) in enumerate(zip(columns, ticks, strict=True)):
        shapes.append(tag("path", d=f"M{_x(i)} {_TOP}v{_HEIGHT}", class_="axis"))
        shapes.append(
            tag("text", _short(column), tag("title", column), x=_x(i), y=16, class_="head")
        )
        last = i == len(columns) - 1
        for position, text in marks:
            shapes.append(
                tag(
                    "text",
                    _short(text, 12),
                    x=_x(i) + (7 if last else -7),
                    y=f"{_y(position) + 4:.1f}",
                    text_anchor="start" if last else "end",
                )
            )
    drawing = tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {width} {height}",
        class_="parallel",
        style=f"width:{width}px;height:{height}px",
        role="img",
        aria_label=f"{heading}: {len(rows)} lines over {', '.join(columns)}; the table has all",
    )
    return tag("figure", chart_caption(heading, []), scrolling(drawing, heading), class_="chart")


def _x(i: int) -> int:
    return _SIDE + i * _STEP


def _y(position: float) -> float:
    return round(_TOP + _HEIGHT * (1 - position), 1)


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
