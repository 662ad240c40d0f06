"""A measurement drawn: a dot for every seed, a stroke at the mean, the baseline below."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from vision.papers.results import Measured, Side
from vision.report.axes import Axis, fit
from vision.report.page import Content, tag

WIDTH, TRACK = 1000, 100  # of the drawing, which is stretched to its place
TICKS = 4
COLOURS = ("c0", "other")  # of the method and the baseline


def chart(measured: Measured) -> Markup:
    """A figure whose words are HTML, so that long names wrap, and whose marks are SVG."""
    sides = [measured.method] + ([measured.baseline] if measured.baseline else [])
    axis = fit(np.asarray([value for side in sides for value in side.values]), pad=0.08)
    names = [
        tag(
            "li",
            tag("span", class_=f"mark {COLOURS[i]}", aria_hidden="true"),
            tag("span", side.name),
            tag("strong", side.number),
        )
        for i, side in enumerate(sides)
    ]
    marks: list[Content] = [_grid(axis, len(sides))]
    if len(sides) == 2 and 1 < len(sides[0].values) == len(sides[1].values):
        marks.append(_pairs(axis, sides[0], sides[1]))
    marks += [mark for i, side in enumerate(sides) for mark in _track(axis, side, i)]
    drawing = tag(
        "svg",
        *marks,
        viewBox=f"0 0 {WIDTH} {TRACK * len(sides)}",
        preserveAspectRatio="none",
        class_=f"seeds tracks{len(sides)}",
        role="img",
        aria_label=str(measured),
    )
    ticks = [
        tag("span", text, style=f"left:{100 * position:.2f}%")
        for position, text in axis.ticks(TICKS)
        if -1e-9 <= position <= 1 + 1e-9
    ]
    return tag(
        "figure",
        tag("figcaption", measured.what),
        tag("ul", *names, class_="sides"),
        drawing,
        tag("div", *ticks, class_="ticks x", aria_hidden="true"),
        class_="measured",
    )


def _track(axis: Axis, side: Side, i: int) -> list[Content]:
    """The mean as an upright stroke, and the seeds as dots; one number is a dot alone."""
    middle = (i + 0.5) * TRACK
    mean = _x(axis, side.mean)
    # A line of no length with round ends stays a circle however the drawing is stretched.
    dots = "".join(f"M{_x(axis, value)} {middle:.0f}h0" for value in side.values)
    marks: list[Content] = [tag("path", d=dots, class_=f"dots {COLOURS[i]}")]
    if len(side.values) > 1:
        ends = f"M{mean} {middle - 0.36 * TRACK:.0f}V{middle + 0.36 * TRACK:.0f}"
        marks.insert(0, tag("path", d=ends, class_=f"mean {COLOURS[i]}"))
    return marks


def _pairs(axis: Axis, method: Side, baseline: Side) -> Markup:
    """Lines between the two numbers of a seed."""
    lines = "".join(
        f"M{_x(axis, a)} {0.5 * TRACK:.0f}L{_x(axis, b)} {1.5 * TRACK:.0f}"
        for a, b in zip(method.values, baseline.values, strict=True)
    )
    return tag("path", d=lines, class_="pairs")


def _grid(axis: Axis, tracks: int) -> Markup:
    lines = "".join(f"M{WIDTH * at:.1f} 0V{TRACK * tracks}" for at, _ in axis.ticks(TICKS))
    return tag("path", d=lines, class_="grid")


def _x(axis: Axis, value: float) -> str:
    return f"{WIDTH * float(axis.place(np.asarray([value]))[0]):.1f}"
