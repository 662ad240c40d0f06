"""Charts as inline SVG that read without scripts, on paper, on a telephone and in the dark.

Lines and areas are drawn in a box that stretches with the page; ticks and texts are HTML beside
it, so that they keep their size. The page's script only adds the linear/log switch and the
read-out under the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.evaluate.figures import Curve, Line, Reliability
from vision.report.axes import LARGEST, Axis, fit, thin, trailing_mean
from vision.report.numbers import is_share, metric, number, percent
from vision.report.page import Content, data_block, disclosure, join, note, table, tag

SIZE = 1000  # side of the drawing box in its own units
POINTS = 1000  # most points drawn per line
FEW = 60  # up to so many, every point gets a dot and nothing is smoothed


def line_chart(
    heading: str, curve: Curve, *, percent_axis: bool = False, smooth: bool = True
) -> Markup:
    """Lines over common axes, with a switch to a logarithmic y axis (not for percent).

    Lines are thinned to ``POINTS`` with their extremes kept. Values that are not finite leave
    gaps. Both are said below the chart, and so is smoothing.

    Args:
      heading: what the chart shows.
      curve: the lines, ``x`` ascending.
      percent_axis: whether values are shares, 0..1.
      smooth: draw lines of more than ``FEW`` points twice: their values thin, and a trailing mean
        over a fiftieth of them bold.
    """
    lines = [
        Line(line.name, line.x, np.where(np.abs(line.y) < LARGEST, line.y, np.nan))
        for line in curve.lines
        if len(line.x)
    ]
    if not lines:
        return tag(
            "figure", chart_caption(heading, []), note("Nothing to draw yet."), class_="chart"
        )
    every_x = np.concatenate([line.x for line in lines])
    every_y = np.concatenate([line.y for line in lines])
    finite = every_y[np.isfinite(every_y)]
    x_axis = fit(every_x, pad=0)
    axes = [fit(every_y, percent=percent_axis)]
    if (finite > 0).any() and not percent_axis:
        axes.append(fit(every_y, log=True))

    remarks, drawn, legend = [], [], []
    covered = []
    for i, line in enumerate(lines):
        below = [other for other in lines[:i] if _same(other, line)]
        covered.append(len(below))
        if below:
            remarks.append(f"{line.name} lies on {below[0].name}, dashed")
        over = max(2, len(line.y) // 50) if smooth and len(line.y) > FEW else 0
        mean = trailing_mean(line.y, over) if over else line.y
        keep = thin(line.y, POINTS)
        drawn.append((line.x[keep], line.y[keep], mean[keep], over))
        legend.append(_legend(line.name, i))
        if over:
            remarks.append(f"{line.name}: thin the values, bold the mean of the last {over}")
        if len(keep) < len(line.y):
            remarks.append(f"{len(keep):,} of {len(line.y):,} points drawn, extremes kept")
    if gaps := int(every_y.size - finite.size):
        remarks.append(f"{gaps:,} value(s) are not finite: gaps")
    if len(axes) > 1 and (hidden := int((finite <= 0).sum())):
        remarks.append(f"the log scale leaves out {hidden:,} value(s) of 0 or less")

    switch = ""
    if len(axes) > 1:
        switch = tag("button", "log scale", type="button", class_="switch", aria_pressed="false")
    plots = [_line_plot(drawn, x_axis, axis, covered) for axis in axes]
    y_ticks = [ticks(axis, "y", hidden=axis.log) for axis in axes]
    return tag(
        "figure",
        chart_caption(heading, legend, switch),
        tag(
            "div",
            *y_ticks,
            tag(
                "div",
                *plots,
                tag("div", class_="cursor", hidden=True),
                class_="area",
                tabindex="0",
                role="img",
                aria_label=_summary(heading, lines, curve.x_label),
            ),
            ticks(x_axis, "x"),
            tag("span", curve.x_label, class_="x-label"),
            class_="plot",
        ),
        tag("p", _last_values(lines, curve.x_label, percent_axis), class_="readout"),
        note("; ".join(dict.fromkeys(remarks)) + ".") if remarks else "",
        data_block(
            {
                "x": [x_axis.low, x_axis.high],
                "y": [[axis.low, axis.high] for axis in axes],
                "xLabel": curve.x_label,
                "lines": [
                    {
                        "name": line.name,
                        "share": percent_axis or is_share(line.name),
                        "window": over,
                        "x": _short(x),
                        "y": _short(mean),
                    }
                    | ({"raw": _short(y)} if over else {})
                    for line, (x, y, mean, over) in zip(lines, drawn, strict=True)
                ],
            }
        ),
        class_="chart",
        data_chart="",
    )


def chart_caption(heading: str, legend: Sequence[Content], switch: Content = "") -> Markup:
    return tag(
        "figcaption",
        tag("h3", heading),
        tag("ul", *legend, class_="legend") if legend else "",
        switch,
    )


def _legend(name: str, i: int) -> Markup:
    return tag("li", tag("span", class_=f"swatch {colour(i)}"), name)


def colour(i: int) -> str:
    return f"c{i % 6}"


def _same(a: Line, b: Line) -> bool:
    return np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y, equal_nan=True)


def _line_plot(
    drawn: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, int]],
    x_axis: Axis,
    axis: Axis,
    covered: Sequence[int],
) -> Markup:
    """``covered``: how many lines each lies on; its dashes leave some of all of them to be seen."""
    shapes: list[Content] = [grid(axis)]
    for i, (x, y, mean, over) in enumerate(drawn):
        across = x_axis.place(x)
        if over:
            shapes.append(_path(across, axis.place(y), f"line raw {colour(i)}"))
        elif len(x) <= FEW:
            shapes.append(_dots(across, axis.place(y), colour(i)))
        dashes = f"stroke-dasharray:8 {8 * (2 ** covered[i] - 1)}" if covered[i] else None
        shapes.append(_path(across, axis.place(mean), f"line {colour(i)}", dashes))
    return svg(shapes, "log" if axis.log else "linear", hidden=axis.log)


def svg(shapes: Sequence[Content], class_: str, *, hidden: bool = False) -> Markup:
    return tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        class_=f"{class_} off" if hidden else class_,
        aria_hidden="true",
    )


def grid(axis: Axis) -> Markup:
    y = [f"M0 {_y(position)}h{SIZE}" for position, _ in axis.ticks()]
    return tag("path", d="".join(y), class_="grid")


def _y(position: float) -> str:
    return f"{SIZE * (1 - position):.1f}"


def _path(across: np.ndarray, up: np.ndarray, class_: str, style: str | None = None) -> Markup:
    steps, pen_down = [], False
    for x, y in zip(across.tolist(), up.tolist(), strict=True):
        if y == y:
            steps.append(f"{'L' if pen_down else 'M'}{SIZE * x:.1f} {_y(y)}")
        pen_down = y == y
    return tag("path", d="".join(steps), class_=class_, style=style)


def _dots(across: np.ndarray, up: np.ndarray, class_: str) -> Markup:
    # A line of no length with round ends stays a circle however the box is stretched.
    pairs = zip(across.tolist(), up.tolist(), strict=True)
    return tag(
        "path",
        d="".join(f"M{SIZE * x:.1f} {_y(y)}h0" for x, y in pairs if y == y),
        class_=f"dots {class_}",
    )


def ticks(axis: Axis, side: str, *, hidden: bool = False) -> Markup:
    edge = "left" if side == "x" else "bottom"
    spans = [
        tag("span", text, style=f"{edge}:{100 * position:.2f}%") for position, text in axis.ticks()
    ]
    kind = f"ticks {side} {'log' if axis.log else 'linear'}{' off' if hidden else ''}"
    return tag("div", *spans, class_=kind, aria_hidden="true")


def _summary(heading: str, lines: Sequence[Line], x_label: str) -> str:
    parts = []
    for line in lines:
        y = line.y[np.isfinite(line.y)]
        if y.size:
            parts.append(
                f"{line.name} from {number(y[0])} to {number(y[-1])}, "
                f"lowest {number(y.min())}, highest {number(y.max())}"
            )
    return f"{heading} by {x_label}: " + ("; ".join(parts) or "no finite values")


def _last_values(lines: Sequence[Line], x_label: str, shares: bool) -> str:
    last = max(line.x[-1] for line in lines)
    parts = [
        f"{line.name} {percent(line.y[-1]) if shares else metric(line.name, line.y[-1])}"
        + ("" if line.x[-1] == last else f" (at {number(line.x[-1])})")
        for line in lines
    ]
    return f"last {x_label} {number(last)}: " + ", ".join(parts)


def _short(values: np.ndarray) -> list[float | None]:
    """Six significant digits; None for what JSON has no number for."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def reliability_diagram(figure: Reliability) -> Markup:
    """Accuracy per bin of confidence against the diagonal, with the counts below."""
    axis, total = Axis(0.0, 1.0, percent=True), int(figure.count.sum())
    if not total:
        return tag(
            "figure",
            chart_caption("Reliability", []),
            note("No labelled examples."),
            class_="chart",
        )
    counts = fit(np.append(figure.count.astype(float), 0.0), pad=0)
    bars, columns, levels = [], [], []
    for i, count in enumerate(figure.count.tolist()):
        left, right = figure.edges[i] * SIZE, figure.edges[i + 1] * SIZE
        box = {"x": f"{left:.1f}", "width": f"{right - left:.1f}"}
        confidence, accuracy = float(figure.confidence[i]), float(figure.accuracy[i])
        title = tag(
            "title",
            f"confidence {percent(figure.edges[i])} to {percent(figure.edges[i + 1])}: "
            f"{count:,} examples, {percent(accuracy)} right, mean confidence {percent(confidence)}",
        )
        height = SIZE * counts.place(np.asarray([float(count)]))[0]
        columns.append(tag("rect", title, **box, y=f"{SIZE - height:.1f}", height=f"{height:.1f}"))
        if count:
            levels.append(f"M{left:.1f} {_y(accuracy)}H{right:.1f}")
            gap = "over" if confidence > accuracy else "under"
            top = max(confidence, accuracy)
            low = min(confidence, accuracy)
            bars.append(tag("rect", title, **box, y=_y(low), height=f"{SIZE * low:.1f}"))
            bars.append(
                tag(
                    "rect",
                    title,
                    **box,
                    y=_y(top),
                    height=f"{SIZE * abs(confidence - accuracy):.1f}",
                    class_=gap,
                )
            )
    above = svg(
        [
            grid(axis),
            tag("g", *bars, class_="bars"),
            tag("path", d="".join(levels), class_="level"),
            tag("path", d=f"M0 {SIZE}L{SIZE} 0", class_="diagonal"),
        ],
        "linear",
    )
    below = svg([tag("g", *columns, class_="bars muted")], "linear")
    legend = [
        tag("li", tag("span", class_="swatch accuracy"), "accuracy"),
        tag("li", tag("span", class_="swatch over"), "too confident by"),
        tag("li", tag("span", class_="swatch under"), "not confident enough by"),
        tag("li", tag("span", class_="swatch dashed"), "perfect calibration"),
    ]
    rows = [
        (
            f"{100 * figure.edges[i]:.3g} to {100 * figure.edges[i + 1]:.3g}%",
            f"{count:,}",
            percent(figure.confidence[i]) if count else "-",
            percent(figure.accuracy[i]) if count else "-",
        )
        for i, count in enumerate(figure.count.tolist())
    ]
    used = figure.count > 0
    label = (
        f"Reliability diagram over {total:,} examples; largest distance between accuracy and "
        f"confidence {percent(np.abs(figure.accuracy - figure.confidence)[used].max())}"
    )
    return tag(
        "figure",
        chart_caption("Reliability", legend),
        tag(
            "div",
            ticks(axis, "y"),
            tag("div", above, class_="area", role="img", aria_label=label),
            class_="plot square",
        ),
        tag(
            "div",
            _ticks_two(counts),
            tag("div", below, class_="area", role="img", aria_label="Examples per bin"),
            ticks(axis, "x"),
            tag("span", "confidence (lower plot: examples)", class_="x-label"),
            class_="plot low",
        ),
        disclosure(
            "Bins as a table",
            table(
                ("confidence", "examples", "mean confidence", "accuracy"),
                rows,
                numeric=(1, 2, 3),
            ),
        ),
        class_="chart",
    )


def _ticks_two(axis: Axis) -> Markup:
    """Only the two ends: there is no room for more."""
    spans = [
        tag("span", number(value), style=f"bottom:{100 * i}%")
        for i, value in enumerate((axis.low, axis.high))
    ]
    return tag("div", join(spans), class_="ticks y linear", aria_hidden="true")
