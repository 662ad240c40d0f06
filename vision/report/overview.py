"""All evaluators of a run in one table: their main numbers, and which of them failed."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from vision.report.numbers import MISSING, metric, number, title
from vision.report.page import Content, exact, join, note, table, tag

SHARED = 5
OWN = 3


def overview(results: Mapping[str, Mapping[str, Any]]) -> Markup:
    """A row per evaluator, linked to its section; failures are listed above and in their rows.

    Metrics that several evaluators yield have columns of their own, at most ``SHARED``; of the
    others the first ``OWN`` of an evaluator stand in its row.
    """
    numbers = {name: _metrics(result) for name, result in results.items()}
    occurrences = collections.Counter(key for metrics in numbers.values() for key in metrics)
    least_count = 2 if len(results) > 1 else 1
    columns = [key for key, count in occurrences.items() if count >= least_count][:SHARED]
    rows = [
        _row(i, name, result, numbers[name], columns)
        for i, (name, result) in enumerate(results.items())
    ]
    heads = ("evaluator", *(title(key) for key in columns), "other main numbers", "seconds")
    numeric = (*range(1, 1 + len(columns)), 2 + len(columns))
    failed = [name for name, result in results.items() if "error" in result]
    parts: list[Content] = []
    if failed:
        text = f"{len(failed)} of {len(results)} evaluators failed: {', '.join(failed)}."
        parts.append(note(text, warning=True))
    parts.append(table(heads, rows, numeric=numeric))
    return tag("div", *parts, class_="stack")


def _metrics(result: Mapping[str, Any]) -> Mapping[str, Any]:
    metrics = result.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _row(
    i: int, name: str, result: Mapping[str, Any], numbers: Mapping[str, Any], columns: list[str]
) -> list[Content]:
    cells: list[Content] = [tag("a", name, href=f"#evaluation-{i}")]
    for key in columns:
        shown = metric(key, numbers[key]) if key in numbers else MISSING
        cells.append(exact(shown, plain(numbers.get(key))))
    if "error" in result:
        failure = tag("strong", "failed: ", class_="failure")
        cells.append(join([failure, str(result["error"])]))
    else:
        others = [key for key in numbers if key not in columns][:OWN]
        cells.append(", ".join(f"{title(key)} {metric(key, numbers[key])}" for key in others))
    seconds = plain(result.get("seconds"))
    cells.append(exact(MISSING if seconds is None else number(seconds, 3), seconds))
    return cells


def plain(value: Any) -> float | None:
    """``value`` as a number to sort by; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return None if math.isnan(float(value)) else float(value)
