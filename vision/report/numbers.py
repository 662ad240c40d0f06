"""Numbers as people read them, on pages and in the terminal."""

from __future__ import annotations

import datetime
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MISSING = "-"

# Title and unit of the metrics that have a better one than their name and a plain number.
TITLES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "accuracy": "Accuracy",
    "nll": "Negative log-likelihood",
    "ece": "Expected calibration error",
    "examples": "Examples",
    "unlabelled": "Without a label",
    "in_train": "Test records that are in the training data",
    "zero_features": "Records with features of zero, left out",
    "nan_examples": "Examples without finite scores",
    "images_per_s": "Images per second",
    "data_wait": "Waiting for data",
    "mfu": "Model FLOPs utilisation",
    "goodput": "Goodput",
    "learning_rate": "Learning rate",
    "loss": "Loss",
}
SHARES = ("top1", "top5", "accuracy", "ece", "data_wait", "mfu", "goodput")


def base(name: str) -> str:
    """``top1`` of ``eval/test/top1``."""
    return name.rsplit("/", 1)[-1]


def title(name: str) -> str:
    """``Grad norm`` of ``train/grad_norm``, or the usual name of a usual metric."""
    words = base(name).replace("_", " ")
    return TITLES.get(base(name), words[:1].upper() + words[1:])


def is_share(name: str) -> bool:
    """Whether a metric is a part of 1, shown in percent."""
    return base(name) in SHARES or name.endswith(("_top1", "_top5"))


def number(value: float, digits: int = 4) -> str:
    """``value`` with ``digits`` significant digits, whole numbers in full.

    Thousands are grouped; very large and very small numbers take an exponent.
    """
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == round(value) and size < 1e12:
        return f"{value:,.0f}"
    if size >= 1e6 or size < 1e-3:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def percent(value: float) -> str:
    """``98.33%`` for 0.98333."""
    return f"{100 * value:.2f}%" if math.isfinite(value) else str(float(value))


def metric(name: str, value: Any) -> str:
    """``value`` as suits the metric's name; a dash for what is not a number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return MISSING if value is None else str(value)
    return percent(float(value)) if is_share(name) else number(float(value))


def moment(text: str) -> str:
    """``2026-01-31 12:00 UTC`` for a time in ISO 8601; another text as it is."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = "" if time.tzinfo is None else f" {time.tzname()}"
    return f"{time:%Y-%m-%d %H:%M}{zone}"


def wilson(share: float, examples: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share of ``examples``, by default at 95%.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    shrink = 1 + z**2 / examples
    middle = (share + z**2 / (2 * examples)) / shrink
    spread = z / shrink * math.sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    return max(0.0, middle - spread), min(1.0, middle + spread)


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned text for a terminal; columns in the order in which they first appear.

    Texts stand left, numbers right; shares are shown in percent; a dash where a row has no such
    column. Control characters are replaced, so that no name can drive the terminal.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return "(no results)"
    cells = [[_clean(metric(name, row.get(name))) for name in columns] for row in rows]
    texts = [any(isinstance(row.get(name), str) for row in rows) for name in columns]
    heads = [_clean(name) for name in columns]
    widths = [max(_width(line[i]) for line in [heads, *cells]) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        padded = []
        for value, width, left in zip(values, widths, texts, strict=True):
            space = " " * (width - _width(value))
            padded.append(value + space if left else space + value)
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(heads), rule, *(line(row) for row in cells)])


def _clean(text: str) -> str:
    return "".join("�" if unicodedata.category(c).startswith("C") else c for c in text)


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)
