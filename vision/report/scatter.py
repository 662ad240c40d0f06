"""Numbered points over two axes: metrics of runs against their costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.report.axes import fit
from vision.report.charts import SIZE, chart_caption, colour, grid, svg, ticks
from vision.report.numbers import is_share, metric
from vision.report.page import note, tag


@dataclasses.dataclass(frozen=True)
class Point:
    """One run: its number in the table, its name, where it lies and how sure ``y`` is.

    Attributes:
      number: in the table.
      name: of the run.
      x: on the horizontal axis.
      y: on the vertical axis.
      low, high: limits of ``y``'s interval; None where there is none.
      slow: where ``x`` reaches in slow runs; None where that is not known.
    """

    number: int
    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    slow: float | None = None


def scatter(heading: str, points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Points with intervals; ``x`` on a logarithmic axis, ``y`` on a linear one.

    Points without a positive ``x`` or a finite ``y`` are left out, and said below.
    """
    shown = [p for p in points if 0 < p.x < np.inf and np.isfinite(p.y)]
    if not shown:
        return tag(
            "figure", chart_caption(heading, []), note("Nothing to draw yet."), class_="chart"
        )
    heights = [v for p in shown for v in (p.y, p.low, p.high) if v is not None]
    reached = [x for p in shown for x in (p.x, p.slow) if x is not None]
    x_axis = fit(np.asarray(reached, np.float64), log=True, pad=0.12)
    y_axis = fit(np.asarray(heights, np.float64), percent=is_share(y_label), pad=0.1)
    across = x_axis.place(np.asarray([p.x for p in shown], np.float64)).tolist()
    upward = y_axis.place(np.asarray([p.y for p in shown], np.float64)).tolist()
    bars = []
    for p, x in zip(shown, across, strict=True):
        if p.low is not None and p.high is not None:
            low, high = y_axis.place(np.asarray([p.low, p.high], np.float64)).tolist()
            line = f"M{SIZE * x:.1f} {SIZE * (1 - low):.1f}V{SIZE * (1 - high):.1f}"
            bars.append(tag("path", d=line, class_=f"line {colour(p.number - 1)}"))
    for p, x, y in zip(shown, across, upward, strict=True):
        if p.slow is not None:
            end = float(x_axis.place(np.asarray([p.slow], np.float64))[0])
            line = f"M{SIZE * x:.1f} {SIZE * (1 - y):.1f}H{SIZE * end:.1f}"
            bars.append(tag("path", d=line, class_=f"line {colour(p.number - 1)}"))
    aside = _aside(list(zip(across, upward, strict=True)))
    dots = [
        mark(
            p.number,
            f"{p.name}: {metric(y_label, p.y)} at {metric(x_label, p.x)} {x_label}",
            f"left:{100 * x:.2f}%;bottom:{100 * y:.2f}%"
            + (f";margin-left:{_MARK_EM * moved:.2f}em" if moved else ""),
        )
        for p, x, y, moved in zip(shown, across, upward, aside, strict=True)
    ]
    summary = ", ".join(f"{p.name} {metric(y_label, p.y)} at {metric(x_label, p.x)}" for p in shown)
    legend = [tag("li", mark(p.number), p.name) for p in shown]
    moved = [str(p.number) for p, distance in zip(shown, aside, strict=True) if distance]
    left_out = [p.name for p in points if p not in shown]
    return tag(
        "figure",
        chart_caption(heading, legend),
        tag(
            "div",
            ticks(y_axis, "y"),
            tag(
                "div",
                svg([grid(y_axis), *bars], "linear"),
                *dots,
                class_="area",
                role="img",
                aria_label=f"{y_label} by {x_label}: {summary}",
            ),
            ticks(x_axis, "x"),
            tag("span", x_label, class_="x-label"),
            class_="plot",
        ),
        note(f"Moved aside, since they lie on each other: {', '.join(moved)}.") if moved else "",
        note(f"Not drawn, for want of a number: {', '.join(left_out)}.") if left_out else "",
        class_="chart",
    )


def mark(number: int, title: str = "", style: str = "") -> Markup:
    """The coloured number that stands for a run."""
    kind = f"point {colour(number - 1)}"
    return tag("span", str(number), class_=kind, style=style or None, title=title or None)


# Marks nearer than these parts of the axes would cover each other.
_NEAR = (0.045, 0.09)
_MARK_EM = 1.7


def _aside(places: Sequence[tuple[float, float]]) -> list[float]:
    """By how many widths of a mark each is moved, so that marks in one place stand in a row."""
    groups: list[list[int]] = []
    for i, place in enumerate(places):
        for group in groups:
            first = places[group[0]]
            if all(abs(a - b) < near for a, b, near in zip(place, first, _NEAR, strict=True)):
                group.append(i)
                break
        else:
            groups.append([i])
    moved = [0.0] * len(places)
    for group in groups:
        for k, i in enumerate(group):
            moved[i] = k - (len(group) - 1) / 2
    return moved
