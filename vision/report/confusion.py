"""Confusion matrices as heat maps and tables, for any number of classes."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from vision.evaluate.figures import ConfusionMatrix
from vision.report.numbers import percent
from vision.report.page import Content, data_block, join, note, scrolling, table, tag

CELLS = 40  # most classes that get a row of their own
GROUPS = 25  # rows when there are more
PAIRS = 15
CLASSES = 20


def confusion(figure: ConfusionMatrix) -> list[Markup]:
    """Cards: heat map, most confused pairs, hardest classes.

    Beyond ``CELLS`` classes the heat map adds up neighbours in label order, and says so.
    """
    if not figure.counts.sum():
        return [_card("Confusion matrix", note("No labelled examples."))]
    return [
        _card("Confusion matrix", _heat_map(figure)),
        _card("Most confused", _pairs(figure)),
        _card("Hardest classes", _classes(figure)),
    ]


def is_wide(figure: ConfusionMatrix) -> bool:
    """Whether the heat map needs the full width of a page."""
    return len(figure.class_names) > 14


def _card(heading: str, content: Content) -> Markup:
    return tag("div", tag("h3", heading), content, class_="card")


def _heat_map(figure: ConfusionMatrix) -> Markup:
    k = len(figure.class_names)
    size = 1 if k <= CELLS else math.ceil(k / GROUPS)
    starts = np.arange(0, k, size)
    counts = np.add.reduceat(np.add.reduceat(figure.counts, starts, 0), starts, 1)
    names = [
        figure.class_names[s]
        if size == 1
        else f"{s}-{min(s + size, k) - 1} ({figure.class_names[s]} ...)"
        for s in starts.tolist()
    ]
    shorts = names if size == 1 else [str(s) for s in starts.tolist()]
    examples = counts.sum(1)
    vertical = len(max(shorts, key=len)) > 3 and len(names) > 4
    head = [
        tag("th", tag("span", short), scope="col", title=name, class_="up" if vertical else None)
        for short, name in zip(shorts, names, strict=True)
    ]
    rows = []
    for i, name in enumerate(names):
        cells: list[Content] = [tag("th", shorts[i], scope="row", title=name)]
        for j, count in enumerate(counts[i].tolist()):
            cells.append(_cell(count, int(examples[i]), (i, j), name, names[j]))
        accuracy = counts[i, i] / examples[i] if examples[i] else float("nan")
        cells.append(tag("td", percent(accuracy) if examples[i] else "-", class_="n total"))
        cells.append(tag("td", f"{examples[i]:,}", class_="n total"))
        rows.append(tag("tr", *cells))
    kind = "heat dense" if len(names) > 16 else "heat"
    grid = tag(
        "table",
        tag("caption", "Rows: true class. Columns: predicted class."),
        tag(
            "thead",
            tag(
                "tr",
                tag("td", class_="corner"),
                *head,
                tag("th", "right", scope="col", class_="total"),
                tag("th", "of", scope="col", class_="total of"),
            ),
        ),
        tag("tbody", *rows),
        class_=kind,
        data_matrix="",
    )
    text = (
        "Colour: share of the row, blue on the diagonal; mistakes in orange on a square-root "
        "scale, so that single ones show."
    )
    if size > 1:
        text += (
            f" {k:,} classes are too many to draw: rows and columns add up {size} neighbours "
            "in label order, and a right answer within the same group lies on the diagonal."
        )
    names_of_cells = data_block({"names": figure.class_names, "size": size})
    return join([scrolling(grid, "Confusion matrix"), note(text), names_of_cells])


def _cell(count: int, examples: int, place: tuple[int, int], true: str, predicted: str) -> Markup:
    if not count:
        return tag("td")
    diagonal = place[0] == place[1]
    share = count / examples
    shade = share if diagonal else 0.15 + 0.85 * math.sqrt(share)
    kind = "right" if diagonal else "wrong"
    return tag(
        "td",
        f"{count:,}",
        # White text reads better than black on the darkest blue only.
        class_=f"{kind} strong" if diagonal and shade > 0.82 else kind,
        style=f"--v:{shade:.3f}",
        data_pair=None if diagonal else f"{place[0]} {place[1]}",
        title=f"{true} taken for {predicted}: {count:,} of {examples:,} ({percent(share)})",
    )


def _pairs(figure: ConfusionMatrix) -> Markup:
    mistakes = figure.counts.copy()
    np.fill_diagonal(mistakes, 0)
    examples = figure.counts.sum(1)
    true, predicted = np.nonzero(mistakes)
    if not len(true):
        return note("No mistakes.")
    order = np.lexsort((predicted, true, -mistakes[true, predicted]))[:PAIRS]
    rows = [
        (
            figure.class_names[t],
            figure.class_names[p],
            f"{mistakes[t, p]:,}",
            percent(mistakes[t, p] / examples[t]),
        )
        for t, p in zip(true[order].tolist(), predicted[order].tolist(), strict=True)
    ]
    return table(
        ("true class", "taken for", "times", "share of the class"),
        rows,
        caption=f"{len(rows)} of {len(true):,} pairs of classes that were confused",
        numeric=(2, 3),
    )


def _classes(figure: ConfusionMatrix) -> Markup:
    correct, examples = np.diag(figure.counts), figure.counts.sum(1)
    predicted = figure.counts.sum(0)
    present = np.flatnonzero(examples)
    hardest = present[np.argsort(correct[present] / examples[present], kind="stable")][:CLASSES]
    rows = [
        (
            figure.class_names[i],
            f"{examples[i]:,}",
            percent(correct[i] / examples[i]),
            percent(correct[i] / predicted[i]) if predicted[i] else "-",
        )
        for i in hardest.tolist()
    ]
    absent = len(examples) - len(present)
    listed = table(
        ("class", "examples", "recall", "precision"),
        rows,
        caption=f"{len(rows)} of {len(present):,} classes, lowest recall first",
        numeric=(1, 2, 3),
    )
    return join([listed, note(f"{absent:,} class(es) have no example here.") if absent else ""])
