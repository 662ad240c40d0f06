"""The page's parts and what it says about files that are missing, broken or large."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from vision.evaluate.figures import (
    ConfusionMatrix,
    Curve,
    Gallery,
    Line,
    Picture,
    Reliability,
    to_json,
)
from vision.report import axes
from vision.report.charts import line_chart, reliability_diagram
from vision.report.confusion import confusion
from vision.report.files import ReportError, read_metrics
from vision.report.numbers import format_table, metric, number, wilson
from vision.report.page import config_tree, data_block, tag
from vision.report.run import gallery, write_report

VOID = ("meta", "img", "br", "hr", "input")


class Outline(html.parser.HTMLParser):
    """Checks that elements nest, and collects attributes and visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_of_a_run(sample: Path, tmp_path: Path) -> None:
    out = write_report(sample, tmp_path / "report.html")
    assert out == tmp_path / "report.html"
    text = out.read_text(encoding="utf-8")
    page = Outline(text)
    evaluation = json.loads((sample / "evaluation.json").read_text())
    top1 = evaluation["evaluators"]["test"]["metrics"]["top1"]
    wrong = len(evaluation["evaluators"]["test"]["figures"]["mistakes"]["items"])
    assert page.text.count(f"{100 * top1:.2f}%") >= 2
    assert page.counts["img"] == wrong > 5
    for words in ("Training", "Confusion matrix", "Reliability", "Most confident mistakes"):
        assert words in page.text
    assert evaluation["command"] in page.text
    assert "0.12.8" in page.text
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith(("data:", "#"))
    assert "http://" not in text
    assert "https://" not in text
    assert list(tmp_path.iterdir()) == [out]


def test_an_evaluation_beside_the_page_comes_first(sample: Path, tmp_path: Path) -> None:
    evaluation = {"evaluators": {"elsewhere": {"metrics": {"top1": 0.125}}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = Outline(write_report(sample, tmp_path / "r.html").read_text()).text
    assert "Evaluation: elsewhere" in text
    assert "12.50%" in text
    assert "Evaluation: test" not in text


def test_missing_files_are_said_in_place(tmp_path: Path) -> None:
    text = Outline(write_report(tmp_path, tmp_path / "report.html").read_text()).text
    for name in ("metrics.jsonl", "evaluation.json", "config.json"):
        assert f"There is no {name} here" in text
    with pytest.raises(ReportError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(tmp_path, tmp_path / "no" / "report.html")


def test_broken_files_are_said_in_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a":')
    (tmp_path / "metrics.jsonl").write_bytes(b'\xff\xfe\n{"step": 1, "train/loss": 2.0}\n7\n')
    figures = {
        "pie": {"kind": "pie"},
        "half": {"kind": "gallery"},
        "number": 3,
    }
    evaluators = {"a": {"metrics": {"top1": None}, "figures": figures}, "b": {"error": "no data"}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"evaluators": evaluators}))
    text = Outline(write_report(tmp_path, tmp_path / "report.html").read_text()).text
    assert "config.json is broken: Expecting value" in text
    assert "2 row(s) are no JSON object with a step: row 1, 3" in text
    assert "Figure 'pie' cannot be shown: unknown kind of figure 'pie'" in text
    assert "Figure 'half' cannot be shown" in text
    assert "Figure 'number' cannot be shown" in text
    assert "This evaluator failed: no data" in text
    (tmp_path / "evaluation.json").write_text("[]")
    text = Outline(write_report(tmp_path, tmp_path / "report.html").read_text()).text
    assert "evaluation.json is broken: it holds no object" in text


def test_a_long_run_stays_small_and_quick(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            loss = 50.0 if step == 77_777 else 1.0
            file.write(f'{{"step": {step}, "train/loss": {loss}, "images_per_s": {step % 7}}}\n')
    started = time.perf_counter()
    out = write_report(tmp_path, tmp_path / "report.html")
    assert time.perf_counter() - started < 30  # about 1 s on an idle core
    assert out.stat().st_size < 1_000_000
    text = out.read_text()
    assert re.search(r"1,00\d of 100,000 points drawn, extremes kept", text)
    assert "50.0" in text  # the one peak is still there


def test_metrics_rows() -> None:
    text = '{"step": 2, "a": 1, "flag": true}\n\n{"step": 1, "a": null}\n{"step": 2, "a": 3}\n{"st'
    series, remark = read_metrics(text)
    assert list(series) == ["a"]
    np.testing.assert_array_equal(series["a"].steps, [1, 2])
    np.testing.assert_array_equal(series["a"].values, [np.nan, 3])
    assert "last row is cut off" in remark
    assert "1 value(s) came twice" in remark
    assert "not numbers, not shown: flag" in remark
    assert read_metrics("") == ({}, "")
    series, remark = read_metrics('{"step": NaN, "a": 1}\n{"step": 1, "a": 2}\n')
    assert series["a"].steps.tolist() == [1]
    assert "row 1" in remark


def test_lines_are_thinned_with_their_extremes_and_gaps() -> None:
    y = np.sin(np.arange(50_000) / 1000)
    y[123], y[40_000], y[7_000] = 9, -9, np.nan
    kept = axes.thin(y, 500)
    assert len(kept) <= 520
    assert {0, 123, 7_000, 40_000, 49_999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(axes.thin(y[:300], 500), np.arange(300))


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_trailing_mean(window: int) -> None:
    y = np.random.default_rng(0).normal(size=40)
    y[[3, 4, 20]] = np.nan
    parts = [y[max(0, i - window + 1) : i + 1] for i in range(40)]
    means = [np.mean(part[np.isfinite(part)]) for part in parts if np.isfinite(part[-1])]
    got = axes.trailing_mean(y, window)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(y))
    np.testing.assert_allclose(got[np.isfinite(y)], np.asarray(means), rtol=1e-12)


def test_one_huge_value_does_not_spoil_the_means_after_it() -> None:
    y = np.ones(100)
    y[10] = 1e20
    assert (axes.trailing_mean(y, 5)[20:] == 1).all()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0],
        [0.97, 0.99],
        [5.0, 5.0],
        [1e-5, 3e-4],
        [1, 1200],
        [3, 100_000],
        [-2.0, 7.0],
        [1e-12, 1e12],
        [0.0, 0.0],
        [1.0001, 1.0002],
        [1.0, 1.0 + 2e-16],
        [1e-320, 1.0],
        [],
    ],
)
def test_ticks_are_few_round_and_inside(values: list[float], log: bool) -> None:
    axis = axes.fit(np.asarray(values, np.float64), log=log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    positions = [position for position, _ in ticks]
    assert all(-1e-6 <= p <= 1 + 1e-6 for p in positions)
    assert positions == sorted(positions)
    assert len({text for _, text in ticks}) == len(ticks)
    shown = [v for v in values if v > axes.SMALLEST or not log]
    inside = axis.place(np.asarray(shown, np.float64))
    assert ((inside >= 0) & (inside <= 1)).all()


def test_a_line_chart_says_what_it_leaves_out() -> None:
    x = np.arange(200.0)
    y = np.where(x == 5, np.nan, x - 3)
    text = str(line_chart("Loss", Curve((Line("train/loss", x, y),), "step", "loss")))
    words = Outline(text).text
    assert "bold the mean of the last 4" in words
    assert "1 value(s) are not finite: gaps" in words
    assert "the log scale leaves out 4 value(s) of 0 or less" in words
    assert "last step 199: train/loss 196" in words
    linear = re.search(r'<svg[^>]*class="linear".*?</svg>', text, re.DOTALL)
    assert linear is not None
    assert linear.group().count("M") >= 3  # the grid, and the raw line begins again after the gap
    wild = np.asarray([np.inf, -np.inf, 1e308, 1e-310, 2.0])
    words = Outline(str(line_chart("L", Curve((Line("l", x[:5], wild),), "step", "")))).text
    assert "3 value(s) are not finite: gaps" in words
    empty = line_chart("Loss", Curve((), "step", "loss"))
    assert "Nothing to draw yet" in Outline(str(empty)).text


def test_reliability_shows_every_bin() -> None:
    figure = Reliability(
        np.linspace(0, 1, 5),
        np.asarray([np.nan, 0.4, 0.7, 0.9]),
        np.asarray([np.nan, 0.5, 0.6, 0.9]),
        np.asarray([0, 10, 20, 70]),
    )
    text = str(reliability_diagram(figure))
    page = Outline(text)
    assert "largest distance between accuracy and confidence 10.00%" in text
    assert page.counts["tr"] == 5
    assert text.count('class="over"') == 1  # confidence 0.7, accuracy 0.6
    assert text.count('class="under"') == 2
    empty = Reliability(figure.edges, figure.confidence * np.nan, figure.accuracy, figure.count * 0)
    assert "over 1 examples" not in str(reliability_diagram(empty))
    assert "No labelled examples" in str(reliability_diagram(empty))


def test_confusion_of_few_classes() -> None:
    counts = np.asarray([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    heat, pairs, classes = map(str, confusion(ConfusionMatrix(counts, ("cat", "dog", "<i>"))))
    assert "cat taken for dog: 2 of 10 (20.00%)" in heat
    assert "&lt;i&gt;" in heat
    assert Outline(heat).counts["tr"] == 4
    assert "1 of 1 pairs" in Outline(pairs).text
    assert "cat dog 2 20.00%" in Outline(pairs).text
    assert "1 class(es) have no example here" in Outline(classes).text
    assert "cat 10 80.00% 100.00%" in Outline(classes).text


def test_confusion_of_many_classes_adds_up_neighbours() -> None:
    k = 1000
    counts = np.eye(k, dtype=int) * 9
    counts[10, 900] = 7
    counts[20, 21] = 4  # within a group
    heat, pairs, classes = confusion(ConfusionMatrix(counts, tuple(f"class {i}" for i in range(k))))
    page = Outline(str(heat))
    assert page.counts["tr"] <= 41
    assert "1,000 classes are too many to draw" in page.text
    numbers = [int(n.replace(",", "")) for n in re.findall(r">([\d,]+)</td>", str(heat))]
    cells = numbers[:]
    assert sum(cells) == 2 * counts.sum()  # the cells, and the column of row totals
    assert "class 10 class 900 7 43.75% class 20 class 21 4" in Outline(str(pairs)).text
    assert "class 10 16 56.25%" in Outline(str(classes)).text
    assert len(str(heat)) < 200_000


def test_no_examples_no_matrix() -> None:
    (card,) = confusion(ConfusionMatrix(np.zeros((3, 3), int), ("a", "b", "c")))
    assert "No labelled examples" in card


def test_a_picture_that_is_missing_says_why() -> None:
    item = Picture(0, "a/0.jpg", "cat", "dog", 0.75, note="truncated")
    text = Outline(str(gallery("mistakes", Gallery((item,))))).text
    assert "No picture. truncated" in text
    assert "dog (75.00%)" in text
    assert "dog (0.750)" in Outline(str(gallery("nearest", Gallery((item,), "similarity")))).text
    assert "a/0.jpg" in text
    assert "None." in gallery("mistakes", Gallery(()))


def test_the_config_tree() -> None:
    config: dict[str, Any] = {
        "_constructor": "a.b.Root",
        "model": {"_constructor": "x.y:ViT", "width": 3, "empty": {}},
        "ops": [{"_constructor": "o.Flip"}, {"_constructor": "o.Crop", "size": [1, 2]}],
        "none": None,
        "text": "<b>",
    }
    page = Outline(str(config_tree(config)))
    assert "model ViT" in page.text
    assert "[0] Flip" in page.text
    assert "size [1, 2]" in page.text
    assert "none None" in page.text
    assert '"<b>"' in page.text
    assert ("title", "x.y:ViT") in page.attributes
    assert page.counts["details"] == 3


def test_nothing_gets_out_of_its_place() -> None:
    evil = "\"><script>alert(1)</script>'"
    made = tag("p", evil, title=evil, data_x=None, hidden=True)
    assert made == Markup(
        '<p title="&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;" hidden>'
        "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;</p>"
    )
    block = data_block({"name": evil})
    assert block.count("<") == 2
    assert json.loads(block[block.index("{") : block.rindex("}") + 1]) == {"name": evil}
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_block({"x": float("nan")})


def test_numbers() -> None:
    assert number(0.27134) == "0.2713"
    assert number(1234.5678) == "1,235"
    assert number(12_000_000) == "12,000,000"
    assert number(12_345_678.9) == "1.235e7"
    assert number(0.00012345) == "1.234e-4"
    assert number(float("nan")) == "nan"
    assert metric("eval/test/top1", 0.98333) == "98.33%"
    assert metric("nll", None) == "-"
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10)[1] == 1


def test_the_table_for_the_terminal() -> None:
    rows = [
        {"evaluator": "test", "top1": 0.98333, "nll": 0.0712, "examples": 360.0},
        {"evaluator": "val\x1b[31m", "top1": 1.0, "ece": float("nan")},
    ]
    assert format_table(rows).split("\n") == [
        "evaluator     top1      nll  examples  ece",
        "---------  -------  -------  --------  ---",
        "test        98.33%  0.07120       360    -",
        "val\ufffd[31m   100.00%        -         -  nan",
    ]
    assert format_table([]) == "(no results)"
    wide = format_table([{"a": "猫", "b": 1}, {"a": "cat", "b": 2}]).split("\n")
    assert wide[2:] == ["猫   1", "cat  2"]


def test_the_command(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "vision.report.run"]
    done = subprocess.run(
        [*command, f"--workdir={sample}", f"--out={out}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(out))
    assert out.exists()
    done = subprocess.run([*command, "--workdir=nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere is not a folder")
    assert "Traceback" not in done.stderr


def test_figures_survive_the_file(tmp_path: Path) -> None:
    """A figure that an evaluator yields is drawn from the JSON that evaluate.py writes."""
    curve = Curve((Line("a", np.asarray([0.0, 1.0]), np.asarray([2.0, np.nan])),), "x", "y")
    figures = {"risk_coverage": to_json(curve)}
    evaluation = {"evaluators": {"t": {"metrics": {"top1": float("nan")}, "figures": figures}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    text = Outline(write_report(tmp_path, tmp_path / "r.html").read_text()).text
    assert "Risk coverage" in text
    assert "nan" in text
