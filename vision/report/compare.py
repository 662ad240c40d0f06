"""The page of a comparison of runs: metrics, paired differences, costs, changed examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.report.cards import ImageCard, cards, image, words
from vision.report.files import series_of, write_page
from vision.report.numbers import MISSING, is_share, metric, number, percent, title
from vision.report.page import Content, code, disclosure, exact, note, page, table, tag
from vision.report.scatter import Point, mark, scatter
from vision.report.several_runs import config_differences, overlaid

COSTS = {
    "parameters": "Parameters",
    "flops": "FLOPs of an image",
    "latency_ms": "Latency, ms",
    "throughput": "Images per second",
}


def write_comparison(comparison: Mapping[str, Any], out: Path) -> Path:
    """Writes the page of a comparison as one file that needs no other.

    Args:
      comparison: what was compared. Numbers that are not known are None or left out.

        * ``runs``: one mapping per run: ``name``, ``workdir``, ``step``, ``metrics`` (evaluator to
          metric to value), ``intervals`` (``"evaluator/metric"`` to [low, high]) and ``cost``
          (``parameters``, ``flops``, ``latency_ms`` and its 90th and 99th percentiles,
          ``latency_ms_p90`` and ``latency_ms_p99``, ``throughput`` in images per second), and
          ``config``, as JSON has it. The curves are read from ``workdir``.
        * ``pairs``: per pair of runs and metric ``a`` and ``b`` (names of runs), ``evaluator``,
          ``metric``, ``difference`` (b - a), ``interval`` [low, high] of it, ``mcnemar_p``,
          ``only_a_right``, ``only_b_right`` (examples), ``rank_correlation`` (-1..1).
        * ``changed``: examples that two runs answer differently: ``a``, ``b``, ``label`` (the true
          class), ``before`` and ``after`` (predictions of ``a`` and ``b``), ``key`` (of the
          record), ``png`` (base64, or None).
        * ``examples``: number of examples that all runs were evaluated on; may be left out.
      out: the HTML file, replaced in one step.

    Returns:
      ``out``.

    Raises:
      ReportError: ``out`` cannot be written.
    """
    return write_page(out, render(comparison))


def render(comparison: Mapping[str, Any]) -> str:
    """The page as text."""
    runs: Sequence[Mapping[str, Any]] = comparison.get("runs") or ()
    pairs: Sequence[Mapping[str, Any]] = comparison.get("pairs") or ()
    changed: Sequence[Mapping[str, Any]] = comparison.get("changed") or ()
    body: list[tuple[str, str, Content]] = [("runs", "Runs", _runs(runs))]
    body.append(("pairs", "Differences", _pairs(pairs)))
    named = [(str(run.get("name")), run) for run in runs]
    if any(run.get("config") for run in runs):
        configs = config_differences([(name, run.get("config")) for name, run in named])
        body.append(("configs", "Configs", configs))
    if curves := [(name, series_of(Path(_place(run)))) for name, run in named if _place(run)]:
        body.append(("curves", "Curves", overlaid(curves)))
    if charts := _costs(runs):
        body.append(("cost", "Accuracy against cost", charts))
    body.append(
        ("changed", "Examples that changed", _changed(changed, [name for name, _ in named]))
    )
    subtitle = ", ".join(str(run.get("name")) for run in runs)
    if examples := comparison.get("examples"):
        subtitle += f"; {number(examples)} labelled examples"
    return page("Comparison of runs", subtitle, body)


def _runs(runs: Sequence[Mapping[str, Any]]) -> Content:
    if not runs:
        return note("No runs were compared.", warning=True)
    columns = dict.fromkeys(
        (evaluator, name)
        for run in runs
        for evaluator, numbers in (run.get("metrics") or {}).items()
        for name in numbers
        # The subtitle has the number of examples, which is that of all runs.
        if name != "examples"
    )
    costs = [name for name in COSTS if any(_known(run, name) is not None for run in runs)]
    several = len({evaluator for evaluator, _ in columns}) > 1
    heads = ["run", "step"]
    heads += [f"{e}: {title(name)}" if several else title(name) for e, name in columns]
    heads += [COSTS[name] for name in costs]
    rows = []
    for i, run in enumerate(runs, 1):
        run_name = tag("span", mark(i), " ", str(run.get("name")), title=_place(run))
        cells: list[Content] = [run_name]
        cells.append(metric("step", run.get("step")))
        for evaluator, name in columns:
            value = (run.get("metrics") or {}).get(evaluator, {}).get(name)
            interval = (run.get("intervals") or {}).get(f"{evaluator}/{name}")
            cells.append(_measured(name, value, interval))
        cells += [
            _latency(run) if name == "latency_ms" else _measured(name, _known(run, name))
            for name in costs
        ]
        rows.append(cells)
    runs_table = table(heads, rows, numeric=range(1, len(heads)))
    folder_rows = [(str(i), code(_place(run))) for i, run in enumerate(runs, 1)]
    text = "In brackets: 95% bootstrap intervals over the examples"
    if "latency_ms" in costs:
        text += "; of the median latency, what 90 and 99 of 100 images stay below"
    interval_note = note(f"{text}.")
    folders = disclosure("Folders", table(("#", "folder"), folder_rows))
    return tag("div", runs_table, interval_note, folders, class_="stack")


def _place(run: Mapping[str, Any]) -> str:
    return str(run.get("workdir", ""))


def _known(run: Mapping[str, Any], name: str) -> float | None:
    value = (run.get("cost") or {}).get(name)
    return None if value is None else float(value)


def _measured(name: str, value: float | None, interval: Sequence[float] | None = None) -> Content:
    if value is None:
        return exact(MISSING, None)
    text = metric(name, value)
    if not interval or interval[0] is None:
        return exact(text, value)
    between = f"{metric(name, interval[0])} to {metric(name, interval[1])}"
    return exact(tag("span", text, tag("small", f" [{between}]")), value)


def _latency(run: Mapping[str, Any]) -> Content:
    """The median, and how far the slow ones are from it."""
    value, p90, p99 = (_known(run, f"latency_ms{end}") for end in ("", "_p90", "_p99"))
    if value is None or p90 is None or p99 is None:
        return _measured("latency_ms", value)
    text = f" [90%: {number(p90)}, 99%: {number(p99)}]"
    return exact(tag("span", number(value), tag("small", text)), value)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Content:
    if not pairs:
        return note("Nothing was compared in pairs.", warning=True)
    rows = []
    for pair in pairs:
        name, interval = str(pair["metric"]), pair.get("interval") or (None, None)
        low, high = interval
        rows.append(
            (
                str(pair["a"]),
                str(pair["b"]),
                f"{pair.get('evaluator', '')}: {title(name)}",
                _difference(name, pair.get("difference"), low, high),
                _verdict(low, high),
                # The test is about right and wrong answers, not about other metrics.
                _p_value(pair.get("mcnemar_p") if is_share(name) else None),
                metric("", pair.get("only_a_right") if is_share(name) else None),
                metric("", pair.get("only_b_right") if is_share(name) else None),
                metric("", pair.get("rank_correlation")),
            )
        )
    heads = ("a", "b", "metric", "b - a", "differs", "McNemar p")
    heads += ("only a right", "only b right", "rank correlation")
    explained = (
        "Intervals: paired bootstrap, the same examples drawn for both. McNemar's exact test asks "
        "whether the examples that only one of them gets right are split evenly. Rank correlation: "
        "whether both find the same examples hard. pp are percentage points."
    )
    numeric = (3, 5, 6, 7, 8)
    return tag("div", table(heads, rows, numeric=numeric, row_headers=False), note(explained))


def _difference(name: str, value: float | None, low: float | None, high: float | None) -> Content:
    text: Content = _signed(name, value)
    if low is not None and high is not None:
        between = f" [{_signed(name, low)} to {_signed(name, high)}]"
        text = tag("span", text, tag("small", between))
    return exact(text, value)


def _signed(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    sign = "+" if value > 0 else "-" if value < 0 else ""
    if is_share(name):
        return f"{sign}{abs(100 * value):.2f} pp"
    return f"{sign}{number(abs(value))}"


def _verdict(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return MISSING
    return "yes" if low > 0 or high < 0 else "not clear"


def _p_value(value: float | None) -> Content:
    if value is None:
        return exact(MISSING, None)
    return exact("< 0.0001" if value < 1e-4 else f"{value:.4f}", value)


def _costs(runs: Sequence[Mapping[str, Any]]) -> Content:
    """One chart per cost that two runs or more know, of the first metric that is a share."""
    columns = [
        (evaluator, name)
        for run in runs
        for evaluator, numbers in (run.get("metrics") or {}).items()
        for name in numbers
    ]
    column = next((item for item in columns if is_share(item[1])), columns[0] if columns else None)
    if column is None:
        return ""
    evaluator, name = column
    charts = []
    for cost, label in COSTS.items():
        points = []
        for i, run in enumerate(runs, 1):
            value = (run.get("metrics") or {}).get(evaluator, {}).get(name)
            low, high = (run.get("intervals") or {}).get(f"{evaluator}/{name}") or (None, None)
            x = _known(run, cost)
            points.append(
                Point(
                    i,
                    str(run.get("name")),
                    math.nan if x is None else x,
                    math.nan if value is None else float(value),
                    low,
                    high,
                    _known(run, f"{cost}_p90"),
                )
            )
        if sum(0 < p.x < math.inf and math.isfinite(p.y) for p in points) > 1:
            charts.append(scatter(f"{title(name)} against {label}", points, label, name))
    return tag("div", *charts, class_="cards") if charts else ""


def _changed(changed: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Content:
    if not changed:
        return note("No example that changed is shown.")
    shown = []
    for example in changed:
        label, before, after = (str(example[name]) for name in ("label", "before", "after"))
        alt = (
            f"{example['key']}: {label}, {example['a']} says {before}, {example['b']} says {after}"
        )
        rows: list[tuple[Content, str, bool]] = [("true", label, False)]
        for run, said in ((str(example["a"]), before), (str(example["b"]), after)):
            number = mark(names.index(run) + 1, run) if run in names else run
            rows.append((number, said, said != label))
        facets = {
            "pair": f"{example['a']} and {example['b']}",
            "change": _kind(label, before, after),
            "true class": label,
        }
        content = (image(example.get("png") or "", alt), words(rows, str(example["key"])))
        shown.append(ImageCard(content, facets))
    counts = [card.facets["change"] for card in shown]
    gained = percent(counts.count(GAINED) / len(counts))
    text = f"A sample of the examples on which two runs differ; {gained} of these are gained by b."
    legend = [tag("li", mark(i), name) for i, name in enumerate(names, 1)]
    runs = tag("ul", *legend, class_="legend")
    return tag("div", note(text), runs, cards(shown, name="changed"), class_="stack")


GAINED, LOST, OTHER = "gained: only b is right", "lost: only a is right", "both are wrong"


def _kind(label: str, before: str, after: str) -> str:
    if before != label and after != label:
        return OTHER
    return GAINED if after == label else LOST
