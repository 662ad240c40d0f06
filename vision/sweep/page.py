"""The page of a sweep: trials in order of their result, parallel coordinates, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vision.report.charts import colour
from vision.report.files import series_of, write_page
from vision.report.numbers import MISSING, metric, number, title
from vision.report.page import Content, exact, headlines, note, page, table, tag
from vision.report.parallel_coordinates import Row, parallel_coordinates
from vision.report.several_runs import MOST_LINES, overlaid
from vision.run.log import duration
from vision.sweep.trials import Trial, shown

REPORT = "report.html"


def ranked(found: Sequence[Trial], mode: str) -> list[Trial]:
    """Trials with a value, best first, those that ran to their end before pruned ones."""
    sign = -1 if mode == "max" else 1
    known = [trial for trial in found if trial.value is not None]
    return sorted(known, key=lambda t: (t.state != "complete", sign * float(t.value or 0)))


def write_sweep_page(
    out: Path, found: Sequence[Trial], *, metric: str, mode: str, count: int
) -> Path:
    """Writes the page of a sweep as one file; it links to the pages of trials, beside it.

    Args:
      out: the HTML file in the folder of the sweep, replaced in one step.
      found: trials that were begun.
      metric: that they are ranked by.
      mode: whether ``max`` or ``min`` of it is best.
      count: trials of the sweep in all.

    Raises:
      ReportError: it cannot be written.
    """
    order = ranked(found, mode)
    order += [trial for trial in found if trial.value is None]
    return write_page(out, render(out.resolve().parent.name, order, metric, mode, count))


def render(name: str, order: Sequence[Trial], metric_name: str, mode: str, count: int) -> str:
    """The page as text; ``order`` as they are listed."""
    counts = {state: sum(t.state == state for t in order) for state in ("complete", "pruned")}
    failed = sum(trial.state == "failed" for trial in order)
    best = order[0] if order and order[0].value is not None else None
    items = [("Trials", f"{counts['complete']} of {count}", "that ran to their end")]
    if best is not None:
        what = f"{'largest' if mode == 'max' else 'smallest'}, trial {best.number}"
        items.insert(0, (title(metric_name), metric(metric_name, best.value), what))
    if counts["pruned"]:
        items.append(("Pruned", str(counts["pruned"]), "stopped early"))
    if failed:
        items.append(("Failed", str(failed), "see the table"))
    items.append(("Time", duration(sum(trial.seconds for trial in order)), "of all trials"))
    summary: list[Content] = [headlines(items)]
    if best is not None:
        summary.append(note(f"Best: {shown(best.parameters)}"))
    body: list[tuple[str, str, Content]] = [
        ("summary", "", tag("div", *summary, class_="stack")),
        ("trials", "Trials", _table(order, metric_name)),
        ("parameters", "Parameters and result", _parallel(order, metric_name)),
        ("curves", "Curves", _curves(order, metric_name)),
    ]
    return page(f"Sweep {name}", f"{metric_name}, {mode} is best", body)


def _keys(order: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(key for trial in order for key in trial.parameters))


def _table(order: Sequence[Trial], metric_name: str) -> Content:
    if not order:
        return note("No trial has begun.", warning=True)
    keys = _keys(order)
    rows = []
    for place, trial in enumerate(order):
        number_text: Content = str(trial.number)
        if (trial.folder / REPORT).exists():
            number_text = tag("a", number_text, href=f"{trial.folder.name}/{REPORT}")
        badge = [tag("span", class_=f"swatch {colour(place)}")] if place < _coloured(order) else []
        cells: list[Content] = [tag("span", *badge, number_text)]
        for key in keys:
            text = trial.parameters.get(key, MISSING)
            cells.append(exact(_rounded(text), _float(text)))
        cells.append(exact(metric(metric_name, trial.value), trial.value))
        cells.append(exact(duration(trial.seconds), trial.seconds))
        state = trial.state if not trial.error else f"{trial.state}: {trial.error}"
        cells.append(state)
        rows.append(cells)
    heads = ["trial", *keys, title(metric_name), "time", "state"]
    numeric = range(len(keys) + 1, len(keys) + 3)
    return table(heads, rows, numeric=list(numeric), row_headers=False)


def _coloured(order: Sequence[Trial]) -> int:
    return min(MOST_LINES, sum(trial.value is not None for trial in order))


def _parallel(order: Sequence[Trial], metric_name: str) -> Content:
    keys = _keys(order)
    known = [trial for trial in order if trial.value is not None]
    columns = [
        *(key.rpartition(".")[2] if _is_plain(key, keys) else key for key in keys),
        metric_name,
    ]
    rows = [
        Row(
            f"trial {trial.number}: {shown(trial.parameters)}, {metric(metric_name, trial.value)}",
            (*(trial.parameters.get(key) for key in keys), trial.value),
            colour(place) if place < MOST_LINES else "",
        )
        for place, trial in enumerate(known)
    ]
    remark = "" if len(known) <= MOST_LINES else note(f"In colour: the best {MOST_LINES}.")
    chart = parallel_coordinates("Parallel coordinates", columns, rows)
    return tag("div", chart, remark, class_="stack")


def _is_plain(key: str, keys: Sequence[str]) -> bool:
    last = key.rpartition(".")[2]
    return sum(each.rpartition(".")[2] == last for each in keys) == 1


def _curves(order: Sequence[Trial], metric_name: str) -> Content:
    runs = []
    for trial in order[:MOST_LINES]:
        if series := series_of(trial.folder):
            runs.append((f"trial {trial.number}", series))
    if not runs:
        return note("No trial has logged anything yet.")
    names = list(dict.fromkeys([metric_name, "train/loss"]))
    remark = note(f"The best {len(runs)} of {len(order)} trials.") if len(order) > len(runs) else ""
    return tag("div", overlaid(runs, names), remark, class_="stack")


def _rounded(text: str) -> str:
    """Texts as they were given; drawn numbers with six digits."""
    value = _float(text)
    return number(value, 4) if value is not None and len(text) > 8 else text


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
