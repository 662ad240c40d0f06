"""Writes the page of a run: curves, numbers, figures, costs and config.

python -m vision.report.run --workdir=workdirs/mine
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.config.cli import help_first, parse, run_main

FLAGS = {
    "workdir": "folder of the run",
    "out": "HTML file; report.html in the workdir by default",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import numpy as np
from markupsafe import Markup

from vision.evaluate.figures import (
    ConfusionMatrix,
    Curve,
    Gallery,
    Line,
    Picture,
    Reliability,
    Table,
    from_json,
)
from vision.report.cards import ImageCard, cards, empty, heading, image, words
from vision.report.charts import line_chart, reliability_diagram
from vision.report.confusion import confusion, is_wide
from vision.report.files import (
    CONFIG,
    EVALUATION,
    METRICS,
    RunFiles,
    read_run,
    write_page,
)
from vision.report.numbers import (
    base,
    format_table,
    is_share,
    metric,
    moment,
    number,
    percent,
    title,
    wilson,
)
from vision.report.overview import overview, plain
from vision.report.page import (
    Content,
    code,
    config_tree,
    disclosure,
    exact,
    headlines,
    join,
    listing,
    note,
    page,
    table,
    tag,
)
from vision.report.timing import PREFIX, time_table

__all__ = ["format_table", "write_report"]

CHARTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Loss", lambda name: name in ("loss", "nll") or name.endswith("_loss")),
    ("Accuracy", lambda name: name in ("accuracy", "top1", "top5")),
    ("Learning rate", lambda name: name.startswith("learning_rate")),
    ("Throughput", lambda name: name == "images_per_s"),
)


# Of the first evaluator, these stand on top of the page.
_MAIN = ("top1", "top5", "nll", "ece")


def write_report(workdir: Path, out: Path) -> Path:
    """Writes the page of a run as one file that needs no other.

    What the workdir lacks is said on the page, in its place. ``evaluation.json`` is taken from
    the folder of ``out`` if there is one, else from the workdir.

    Args:
      workdir: folder with ``config.json``, ``metrics.jsonl`` and ``evaluation.json``.
      out: the HTML file, replaced in one step.

    Returns:
      ``out``.

    Raises:
      ReportError: ``workdir`` is no folder, or ``out`` cannot be written.
    """
    beside = out.parent / EVALUATION
    files = read_run(workdir, beside if beside.exists() else None)
    return write_page(out, render(files))


def render(files: RunFiles) -> str:
    """The page as text."""
    evaluation = files.evaluation or {}
    body: list[tuple[str, str, Content]] = [("summary", "", _summary(files))]
    body.append(("training", "Training", _training(files)))
    spent = {
        name.removeprefix(PREFIX): float(series.values[-1])
        for name, series in files.series.items()
        if name.startswith(PREFIX)
    }
    if spent:
        body.append(("time", "Where the time went", time_table(spent)))
    evaluators = _mapping(evaluation.get("evaluators"))
    if EVALUATION in files.problems:
        problem = note(files.problems[EVALUATION], warning=True)
        body.append(("evaluation", "Evaluation", problem))
    elif not evaluators:
        body.append(("evaluation", "Evaluation", note("No evaluator ran.", warning=True)))
    else:
        results = {name: _mapping(result) for name, result in evaluators.items()}
        if len(results) > 1:  # one shows its numbers in its own section
            body.append(("evaluation", "Evaluation", overview(results)))
    for i, (name, result) in enumerate(evaluators.items()):
        on_top = (*_MAIN, "examples") if len(evaluators) == 1 else ()
        content = _evaluation(_mapping(result), on_top)
        body.append((f"evaluation-{i}", f"Evaluation: {name}", content))
    body.append(("config", "Configuration", _config(files)))
    body.append(("made-with", "Made with", _made_with(evaluation)))
    # The overview links to the sections of several evaluators.
    linked = [id_ for id_, _, _ in body if len(evaluators) < 2 or "evaluation-" not in id_]
    return page(files.workdir.resolve().name or "run", _subtitle(files), body, linked=linked)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _subtitle(files: RunFiles) -> str:
    evaluation = files.evaluation or {}
    model = _mapping(_mapping(files.config).get("model")).get("_constructor")
    parts = [re.split(r"[.:]", str(model))[-1]] if model else []
    if "step" in evaluation:
        parts.append(f"evaluated at step {metric('step', evaluation['step'])}")
    if "created" in evaluation:
        parts.append(moment(str(evaluation["created"])))
    return ", ".join(parts) or "image classification run"


def _summary(files: RunFiles) -> Content:
    items: list[tuple[str, str, str]] = []
    evaluators = _mapping((files.evaluation or {}).get("evaluators"))
    for name, result in list(evaluators.items())[:1]:
        numbers = _mapping(_mapping(result).get("metrics"))
        for key in _MAIN:
            if key in numbers:
                items.append((title(key), metric(key, numbers[key]), _remark(key, numbers, name)))
    if not items:
        for name, series in files.series.items():
            if base(name) in ("top1", "nll", "ece") and not name.startswith("train/"):
                remark = f"{name} at step {number(series.steps[-1])}, while training"
                items.append((title(name), metric(name, series.values[-1]), remark))
    if files.series:
        last = max(series.steps[-1] for series in files.series.values())
        items.append(("Training steps", number(last), ""))
    if speed := [s for name, s in files.series.items() if base(name) == "images_per_s"]:
        middle = float(np.nanmedian(speed[0].values)) if len(speed[0].values) else float("nan")
        items.append(("Images per second", number(middle, 3), "training, median"))
    return headlines(items) if items else note("Nothing was measured yet.", warning=True)


def _remark(key: str, numbers: Mapping[str, Any], evaluator: str) -> str:
    value, examples = numbers[key], numbers.get("examples")
    if (
        key == "top1"
        and isinstance(value, int | float)
        and isinstance(examples, int | float)
        and 0 <= value <= 1
        and examples > 0
    ):
        low, high = wilson(value, examples)
        return (
            f"{evaluator}, {number(examples)} examples; "
            f"95% interval {100 * low:.1f}% to {100 * high:.1f}%"
        )
    return f"{evaluator}, nats" if key == "nll" else evaluator


def _training(files: RunFiles) -> Content:
    parts: list[Content] = []
    if METRICS in files.problems:
        parts.append(note(files.problems[METRICS], warning=True))
    elif not files.series:
        parts.append(note(f"{METRICS} has no rows yet.", warning=True))
    unplotted = {name: x for name, x in files.series.items() if not name.startswith(PREFIX)}
    charts = []
    for what, in_chart in CHARTS:
        names = [name for name in unplotted if in_chart(base(name))]
        lines = tuple(Line(n, unplotted[n].steps, unplotted.pop(n).values) for n in names)
        if lines:
            charts.append(
                line_chart(
                    what,
                    Curve(lines, "step", what),
                    percent_axis=all(is_share(line.name) for line in lines),
                    smooth=what != "Learning rate",
                )
            )
    if charts:
        parts.append(tag("div", *charts, class_="cards"))
    others: dict[str, list[Line]] = {}
    for name, series in unplotted.items():
        if base(name) == "examples":  # a count that stays what it is
            continue
        others.setdefault(base(name), []).append(Line(name, series.steps, series.values))
    if others:
        small = [
            line_chart(title(name), Curve(tuple(lines), "step", name), percent_axis=is_share(name))
            for name, lines in others.items()
        ]
        parts.append(disclosure(f"More curves ({len(small)})", tag("div", *small, class_="cards")))
    return tag("div", *parts, class_="stack")


def _evaluation(result: Mapping[str, Any], on_top: Sequence[str]) -> Content:
    """Numbers, but for those that stand ``on_top`` of the page already, and figures."""
    parts: list[Content] = []
    if error := result.get("error"):
        parts.append(note(f"This evaluator failed: {error}", warning=True))
    numbers = _mapping(result.get("metrics"))
    rows = [
        (title(key), code(key), exact(metric(key, value), plain(value)))
        for key, value in numbers.items()
        if key not in on_top
    ]
    if rows:
        parts.append(table(("metric", "name", "value"), rows, numeric=(2,)))
    if numbers.get("nan_examples"):
        text = "Some scores were not finite: those examples are wrong and in no confusion matrix."
        parts.append(note(text, warning=True))
    narrow: list[Content] = []
    wide: list[Content] = []
    for name, data in _mapping(result.get("figures")).items():
        try:
            figure = from_json(_mapping(data))
        except ValueError as error:
            text = f"Figure {name!r} cannot be shown: {error}"
            wide.append(note(text, warning=True))
            continue
        match figure:
            case ConfusionMatrix():
                first, *others = confusion(figure)
                (wide if is_wide(figure) else narrow).append(first)
                wide.append(tag("div", *others, class_="cards"))
            case Reliability():
                narrow.append(reliability_diagram(figure))
            case Gallery():
                wide.append(gallery(name, figure))
            case Table():
                narrow.append(_listed(name, figure))
            case Curve():
                narrow.append(line_chart(title(name), figure, smooth=False))
    cards = tag("div", *narrow, class_="cards") if narrow else ""
    return tag("div", *parts, cards, *wide, class_="stack")


def _listed(name: str, figure: Table) -> Markup:
    rows = [
        [
            value if isinstance(value, str) else exact(metric(column, value), plain(value))
            for column, value in zip(figure.columns, row, strict=True)
        ]
        for row in figure.rows
    ]
    numeric = [
        i
        for i in range(len(figure.columns))
        if not any(isinstance(row[i], str) for row in figure.rows)
    ]
    heads = [title(column) for column in figure.columns]
    html_table = table(heads, rows, caption=figure.caption, numeric=numeric)
    return tag("div", tag("h3", title(name)), html_table, class_="card")


def gallery(name: str, figure: Gallery) -> Markup:
    """Pictures with label, prediction, score and record key, to be chosen among."""
    heading_text, order = title(name), "Queries, each with its best answers and their similarity."
    if name == "mistakes":
        heading_text = "Most confident mistakes"
        order = "In order of the probability given to the wrong class."
        order += " A click on a number in the confusion matrix shows the pictures of that pair."
    if not figure.items:
        return empty(heading_text)
    is_probability = figure.score == "probability"
    shown = [_card(item, is_probability) for item in figure.items]
    none_text = f"Only these {len(shown):,} are kept, while the confusion matrix counts all."
    filtered = cards(
        shown,
        name=name,
        score="probability" if is_probability else "",
        none=none_text if is_probability else "",
    )
    return heading(heading_text, note(order), filtered)


def _card(item: Picture, is_probability: bool) -> ImageCard:
    encoded = base64.b64encode(item.png).decode("ascii")
    picture = image(encoded, f"{item.key}: {item.label}, predicted {item.prediction}", item.note)
    score = percent(item.score) if is_probability else f"{item.score:.3f}"
    wrong = item.prediction != item.label
    rows = [("true", item.label, False), ("said", f"{item.prediction} ({score})", wrong)]
    if item.group:
        rows.append(("group", item.group, False))
    facets = {"true": item.label, "predicted": item.prediction, "group": item.group}
    return ImageCard(
        (picture, words(rows, item.key)), facets, item.score if is_probability else math.nan
    )


def _config(files: RunFiles) -> Content:
    if files.config is None:
        return note(files.problems[CONFIG], warning=True)
    text = json.dumps(files.config, indent=2, ensure_ascii=False)
    parts = [config_tree(files.config), disclosure("As JSON", listing(text))]
    if CONFIG in files.problems:
        parts.insert(0, note(files.problems[CONFIG], warning=True))
    return tag("div", *parts, class_="stack")


def _made_with(evaluation: Mapping[str, Any]) -> Content:
    parts: list[Content] = []
    facts = [(k, str(evaluation[k])) for k in ("created", "checkpoint") if k in evaluation]
    if command := evaluation.get("command"):
        parts.append(join([tag("h3", "Command"), listing(str(command))]))
    if facts:
        parts.append(table(("fact", "value"), facts))
    if versions := _mapping(evaluation.get("versions")):
        rows = [(name, str(version)) for name, version in versions.items()]
        parts.append(table(("package", "version"), rows))
    if not parts:
        return note(f"Command and versions are in {EVALUATION}, which is not here.", warning=True)
    return tag("div", *parts, class_="stack")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(arguments, __doc__ or "", required=("workdir",), **FLAGS)
    workdir = Path(options.workdir)
    print(write_report(workdir, Path(options.out) if options.out else workdir / "report.html"))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
