"""A measurement drawn: a dot for every seed, a stroke at the mean, the baseline below; and what
decides a claim: a dot for every pair, the interval of their mean, and the margin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.papers.measured import Measured, Side
from vision.papers.outcome import Difference, Margin
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


def differences(seen: Difference, margin: Margin) -> Markup:
    """Paired differences: dots, a bar over the 95 % interval, strokes at zero and at the margin.

    ``seen`` has at least two pairs.
    """
    ends = [seen.low, seen.high]
    axis = fit(np.asarray([*seen.values, *ends, 0.0, margin.value]), pad=0.08)
    middle = TRACK / 2
    low, high, zero, bar = (_x(axis, value) for value in (*ends, 0.0, margin.value))
    drawing = tag(
        "svg",
        tag("path", d=f"M{zero} 0V{TRACK}", class_="zero"),
        tag("path", d=f"M{bar} 0V{TRACK}", class_="margin"),
        tag("path", d=f"M{low} {middle:.0f}H{high}", class_="interval"),
        _dots(axis, seen.values, middle, "c0"),
        viewBox=f"0 0 {WIDTH} {TRACK}",
        preserveAspectRatio="none",
        class_="seeds tracks1",
        role="img",
        aria_label=f"paired differences {seen}",
    )
    ticks = [
        tag("span", text, style=f"left:{100 * position:.2f}%")
        for position, text in axis.ticks(TICKS)
        if -1e-9 <= position <= 1 + 1e-9
    ]
    return tag(
        "figure",
        tag(
            "figcaption", f"better by, pair by pair: {seen}; dashed, the margin {margin.value:.3g}"
        ),
        drawing,
        tag("div", *ticks, class_="ticks x", aria_hidden="true"),
        class_="measured decides",
    )


def _dots(axis: Axis, values: Sequence[float], middle: float, colour: str) -> Markup:
    """A line of no length with round ends stays a circle however the drawing is stretched."""
    dots = "".join(f"M{_x(axis, value)} {middle:.0f}h0" for value in values)
    return tag("path", d=dots, class_=f"dots {colour}")


def _track(axis: Axis, side: Side, i: int) -> list[Content]:
    """The mean as an upright stroke, and the seeds as dots; one number is a dot alone."""
    middle = (i + 0.5) * TRACK
    mean = _x(axis, side.mean)
    marks: list[Content] = [_dots(axis, side.values, middle, COLOURS[i])]
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
