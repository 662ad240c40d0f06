"""Clicks on the page of a run: sorted tables, mistakes by class, confidence, group and cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import Browser, needs_browser
from vision.evaluate.figures import ConfusionMatrix, Gallery, Picture, Table, to_json
from vision.report.run import write_report

pytestmark = [needs_browser, pytest.mark.slow]

NAMES = ("cat", "dog", "<b>bird")
SHOWN = (
    "return [...document.querySelectorAll('[data-filter] figure')]"
    ".filter(f => f.checkVisibility()).map(f => f.querySelector('.key').textContent)"
)
STATUS = "return document.querySelector('[data-filter] output').textContent"
COLUMN = (
    "return [...document.querySelectorAll(`${arguments[0]} table[data-sort] tbody tr`)]"
    ".map(row => row.cells[arguments[1]].textContent)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("clicks")
    made = [(0, 1, 0.95, "left"), (0, 2, 0.8, "right"), (1, 0, 0.6, "left"), (2, 0, 0.41, "right")]
    pictures = tuple(
        Picture(i, f"r{i}", NAMES[true], NAMES[predicted], sure, b"", "no file", group)
        for i, (true, predicted, sure, group) in enumerate(made)
    )
    counts = np.asarray([[10, 1, 1], [1, 9, 1], [1, 0, 5]])
    rows = (("a", 1200.0), ("b", 30.5), ("c", float("nan")), ("d", None), ("e", 4e-9))
    figures = {
        "confusion": to_json(ConfusionMatrix(counts, NAMES)),
        "mistakes": to_json(Gallery(pictures)),
        "sizes": to_json(Table(("name", "count"), rows)),
    }
    failed = {"seconds": 0.5, "error": "no <b>data</b> there"}
    good = {"seconds": 12.0, "metrics": {"top1": 0.75, "nll": 0.5}, "figures": figures}
    other = {"seconds": 3.0, "metrics": {"top1": 0.5}}
    evaluators = {"good": good, "failed": failed, "other": other}
    (work / "evaluation.json").write_text(json.dumps({"evaluators": evaluators}))
    return write_report(work, work / "report.html")


def test_headings_sort_and_what_is_missing_stays_last(browser: Browser, report: Path) -> None:
    browser.open(report)
    card = "#evaluation-0 > .stack > .cards:nth-child(2) > .card:last-child"
    assert browser.run(COLUMN, card, 0) == ["a", "b", "c", "d", "e"]
    browser.click(f"{card} th:nth-child(2) .sort")
    assert browser.run(COLUMN, card, 0) == ["e", "b", "a", "c", "d"]
    browser.type(f"{card} th:nth-child(2) .sort", "\ue007")  # the enter key, the other way
    assert browser.run(COLUMN, card, 0) == ["a", "b", "e", "c", "d"]
    state = f"return document.querySelector('{card} th:nth-child(2)').ariaSort"
    assert browser.run(state) == "descending"


def test_the_overview_says_who_failed(browser: Browser, report: Path) -> None:
    browser.open(report)
    text = browser.run("return document.querySelector('#evaluation').textContent")
    assert "1 of 3 evaluators failed: failed." in text
    assert "failed: no <b>data</b> there" in text
    browser.click("#evaluation th:nth-child(2) .sort")
    assert browser.run(COLUMN, "#evaluation", 0) == ["other", "good", "failed"]
    browser.click("#evaluation tbody tr:last-child a")
    assert browser.run("return location.hash") == "#evaluation-1"
    section = browser.run("return document.querySelector('#evaluation-1').textContent")
    assert "This evaluator failed: no <b>data</b> there" in section


def test_mistakes_by_class_confidence_and_group(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.run(STATUS) == "4 shown"
    browser.type("[data-name=true]", "cat")
    assert browser.run(SHOWN) == ["r0", "r1"]
    assert browser.run(STATUS) == "2 of 4 shown"
    browser.type("[data-from]", "90")
    assert browser.run(SHOWN) == ["r0"]
    browser.type("[data-name=group]", "right")
    assert browser.run(SHOWN) == []
    none = "return document.querySelector('[data-none]').checkVisibility()"
    assert browser.run(none) is True
    browser.click("[data-reset]")
    assert browser.run(STATUS) == "4 shown"
    assert browser.run(none) is False


def test_a_cell_of_the_matrix_shows_its_mistakes(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.click('[data-pair="1 0"]')
    assert browser.run(SHOWN) == ["r2"]
    focus = "return document.activeElement.textContent"
    assert browser.run(focus) == "Most confident mistakes"
    browser.click('[data-pair="1 2"]')  # counted, but not among the pictures
    assert browser.run(SHOWN) == []
    browser.run("document.querySelector('[data-pair=\"0 1\"]').focus()")
    browser.type('[data-pair="0 1"]', "\ue014")  # arrow right, to the next cell with mistakes
    assert browser.run("return document.activeElement.dataset.pair") == "0 2"
    browser.type('[data-pair="0 2"]', "\ue007")
    assert browser.run(SHOWN) == ["r1"]
