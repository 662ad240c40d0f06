"""What pages about several runs share: their curves over each other, and where configs differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vision.config.hints import CONSTRUCTOR
from vision.evaluate.figures import Curve, Line
from vision.report.charts import line_chart
from vision.report.files import Series
from vision.report.numbers import MISSING, is_share, title
from vision.report.page import Content, code, note, table, tag

# As many as there are colours.
MOST_LINES = 6
# Curves that every run has and that say something beside another run's.
_SHOWN = ("train/loss", "train/learning_rate")


def overlaid(
    runs: Sequence[tuple[str, Mapping[str, Series]]], metrics: Iterable[str] | None = None
) -> Content:
    """One chart per metric, with a line per run.

    Args:
      runs: name and curves of each, at most ``MOST_LINES`` of which are drawn.
      metrics: names of curves, such as ``test/top1``; None for the training loss and what
        evaluators measured, where at least two runs have it.
    """
    if metrics is None:
        names = dict.fromkeys(name for _, series in runs for name in series)
        metrics = [
            name
            for name in names
            if name in _SHOWN or not name.startswith(("train/", "seconds/", "data/"))
            if "/" in name and sum(name in series for _, series in runs) > 1
            if name.rpartition("/")[2] != "examples"
        ]
    charts = []
    for name in metrics:
        lines = tuple(
            Line(run, series[name].steps, series[name].values)
            for run, series in runs[:MOST_LINES]
            if name in series
        )
        if lines:
            heading = title(name) if name.startswith("train/") else f"{title(name)} ({name})"
            share = is_share(name)
            charts.append(line_chart(heading, Curve(lines, "step", name), percent_axis=share))
    if not charts:
        return note("No metric was logged by two runs or more: there are no curves to lay over.")
    left_out = len(runs) - MOST_LINES
    remark = (
        note(f"The first {MOST_LINES} runs are drawn, {left_out} are not.") if left_out > 0 else ""
    )
    return tag("div", tag("div", *charts, class_="cards"), remark, class_="stack")


def config_differences(runs: Sequence[tuple[str, Mapping[str, Any] | None]]) -> Markup:
    """A table of the places in which the configs of runs differ, a column per run.

    Args:
      runs: name and resolved config of each; None where it cannot be read.
    """
    flat = [{} if config is None else _flat(config) for _, config in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    known = [each for each in flat if each]
    differing = [key for key in keys if len({each.get(key, MISSING) for each in known}) > 1]
    unread = [name for name, config in runs if config is None]
    remark = (
        note(f"No config could be read of: {', '.join(unread)}.", warning=True) if unread else ""
    )
    if not differing:
        return tag("div", note("The configs do not differ."), remark, class_="stack")
    rows = [[code(key), *(code(each.get(key, MISSING)) for each in flat)] for key in differing]
    return tag("div", table(("key", *(name for name, _ in runs)), rows), remark, class_="stack")


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Path to text of every value that is not itself a mapping or a list of parts."""
    if isinstance(value, Mapping):
        pairs = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(x, Mapping) for x in value):
        pairs = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    else:
        constructor = path.rpartition(".")[2] == CONSTRUCTOR
        text = str(value).rpartition(".")[2] if constructor else json.dumps(value, default=str)
        return {path.removesuffix(f".{CONSTRUCTOR}") if constructor else path: text}
    return {key: text for each, item in pairs for key, text in _flat(item, each).items()}
