"""The page in a real browser: drawn, clicked, free of errors and of outside requests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import CONTRAST, Browser, needs_browser
from vision.evaluate.figures import ConfusionMatrix, Gallery, Picture, to_json
from vision.report.run import write_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def report(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(sample, tmp_path_factory.mktemp("page") / "report.html")


def test_it_loads_without_errors_or_requests(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.messages() == []
    requests = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(name => !name.startsWith('data:'))"
    )
    assert requests == []
    assert browser.run("return document.title") == report_name(browser)
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert browser.run("return document.images.length") > 5
    assert browser.run(broken) == 0
    assert (
        browser.run("return document.querySelectorAll('img:not([alt]), img[alt=\"\"]').length") == 0
    )


def report_name(browser: Browser) -> str:
    return browser.run("return document.querySelector('h1').textContent")


def test_the_log_switch_changes_the_axis(browser: Browser, report: Path) -> None:
    browser.open(report)

    def drawn() -> list[str]:
        return browser.run(
            "const chart = document.querySelector('[data-chart]');"
            "return [...chart.querySelectorAll('.area svg, .ticks.y')]"
            ".filter(e => e.getClientRects().length).map(e => e.className.baseVal ?? e.className)"
        )

    assert sorted(drawn()) == ["linear", "ticks y linear"]
    browser.click("[data-chart] .switch")
    assert sorted(drawn()) == ["log", "ticks y log"]
    pressed = "return document.querySelector('[data-chart] .switch').ariaPressed"
    assert browser.run(pressed) == "true"
    browser.click("[data-chart] .switch")
    assert sorted(drawn()) == ["linear", "ticks y linear"]


def test_the_read_out_follows_pointer_and_keys(browser: Browser, report: Path) -> None:
    browser.open(report)
    text = "return document.querySelector('[data-chart] .readout').textContent"
    resting = browser.run(text)
    assert resting.startswith("last step 1,200: train/loss")
    browser.point("[data-chart] .area", 0.5)
    middle = browser.run(text)
    assert middle.startswith("step 60")  # 601 of 1..1200, or its neighbour after thinning
    assert "train/loss" in middle
    assert "mean of 24" in middle
    assert "eval/test/nll" in middle
    dots = "return document.querySelectorAll('[data-chart] .cursor span').length"
    assert browser.run(dots) == 2
    browser.point("h1", 0.5)
    assert browser.run(text) == resting
    browser.type("[data-chart] .area", "\ue012")  # arrow left: begins at the last step
    assert browser.run(text).startswith("step 1,200:")
    browser.type("[data-chart] .area", "\ue012")
    assert not browser.run(text).startswith("step 1,200:")
    browser.type("[data-chart] .area", "\ue00c")  # escape
    assert browser.run(text) == resting


def test_details_and_the_config_tree_open(browser: Browser, report: Path) -> None:
    browser.open(report)
    more = "section#training details"
    shown = f"return document.querySelector('{more} .chart').checkVisibility()"
    assert browser.run(shown) is False
    browser.click(f"{more} > summary")
    assert browser.run(shown) is True
    states = "return [...document.querySelectorAll('.tree details')].map(d => d.open)"
    assert not all(browser.run(states))
    browser.click(".tree [data-open-all]")
    assert all(browser.run(states))
    assert browser.run("return document.querySelector('.tree').innerText").count("warmup") == 1
    browser.click(".tree [data-open-all]")
    assert not any(browser.run(states))
    hover = "return document.querySelector('.tree abbr').title"
    assert browser.run(hover) == "vision.run.experiment.Experiment"


def test_everything_is_open_on_paper(browser: Browser, report: Path) -> None:
    browser.open(report)
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = browser.run(closed)
    assert before > 0
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(closed) == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(closed) == before
    assert len(browser.devtools("Page.printToPDF", printBackground=True)["data"]) > 10_000


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_nothing_sticks_out_sideways(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width)
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    sizes = "return [document.documentElement.scrollWidth, innerWidth]"
    across, window = browser.run(sizes)
    assert window == width
    assert across <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser: Browser, report: Path, scheme: str) -> None:
    """WCAG's contrast ratio of 4.5, for every kind of text on the page."""
    browser.scheme(scheme)
    browser.open(report)
    low = browser.run(CONTRAST)
    browser.scheme("light")
    assert low == []


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    evil = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    work = tmp_path / "run<script>alert(1)<script>"
    work.mkdir()
    picture = Picture(0, f"{evil}.png", evil, '" onerror="window.hacked=3', 0.5, b"\x89PNG", "")
    matrix = ConfusionMatrix(np.asarray([[3, 1], [0, 2]]), (evil, "b"))
    evaluation = {
        "step": evil,
        "checkpoint": evil,
        "command": evil,
        "created": evil,
        "versions": {evil: evil},
        "evaluators": {
            evil: {
                "metrics": {evil: 1.0, "top1": 0.5},
                "figures": {evil: to_json(matrix), "g": to_json(Gallery((picture,)))},
                "error": evil,
            }
        },
    }
    (work / "evaluation.json").write_text(json.dumps(evaluation))
    config = {"_constructor": evil, evil: evil, "model": {"_constructor": evil, "x": [evil]}}
    (work / "config.json").write_text(json.dumps(config))
    rows = [{"step": i, f"train/{evil}": i * 1.0, evil: i} for i in range(3)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    browser.open(write_report(work, tmp_path / "evil.html"))
    assert browser.run("return window.hacked ?? null") is None
    # Data of one chart and of one matrix, and the page's own.
    assert browser.run("return document.scripts.length") == 3
    assert browser.run("return document.querySelectorAll('[onerror], img[src=x]').length") == 0
    assert evil in browser.run("return document.body.textContent")
