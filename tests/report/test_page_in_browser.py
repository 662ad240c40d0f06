"""The page in a real browser: drawn, clicked, free of errors and of outside requests."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision.core.figures import ConfusionMatrix, Gallery, Picture, to_json
from vision.report.run import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs the programs chromium and chromedriver on PATH"
)

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


CENTRE = {"block": "center", "behavior": "instant"}


class Browser:
    """A headless Chromium, driven through chromedriver's HTTP interface on loopback."""

    def __init__(self, port: int, profile: Path):
        self._root = f"http://127.0.0.1:{port}"
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        capabilities = {
            "alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        }
        self._session = self._send("/session", {"capabilities": capabilities})["sessionId"]

    def _send(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._root + path, data, method=method)
        # No proxy: the driver is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)["value"]

    def send(self, path: str, body: Any = None, method: str = "POST") -> Any:
        return self._send(f"/session/{self._session}{path}", body, method)

    def open(self, page: Path, width: int = 1400, height: int = 900) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send("/url", {"url": page.resolve().as_uri()})

    def devtools(self, command: str, **params: Any) -> Any:
        return self.send("/goog/cdp/execute", {"cmd": command, "params": params})

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.send("/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        found = self.send("/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def click(self, selector: str) -> None:
        """A real click: it fails where something else covers the element."""
        self.run(
            "document.querySelector(arguments[0]).scrollIntoView(arguments[1])", selector, CENTRE
        )
        self.send(f"/element/{self.find(selector)}/click")

    def type(self, selector: str, keys: str) -> None:
        self.send(f"/element/{self.find(selector)}/value", {"text": keys})

    def point(self, selector: str, across: float) -> None:
        """Moves the mouse over an element, ``across`` (0..1) of its width."""
        self.run(
            "document.querySelector(arguments[0]).scrollIntoView(arguments[1])", selector, CENTRE
        )
        box = self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]",
            selector,
        )
        move = {
            "type": "pointerMove",
            "duration": 0,
            "x": round(box[0] + across * box[2]),
            "y": round(box[1] + box[3] / 2),
        }
        actions = [{"type": "pointer", "id": "mouse", "actions": [move]}]
        self.send("/actions", {"actions": actions})

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.send("/se/log", {"type": "browser"})]

    def screenshot(self, out: Path) -> None:
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.send("", method="DELETE")


@contextlib.contextmanager
def browser_in(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in ``folder``; ends with the processes it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert DRIVER is not None
    driver = subprocess.Popen(
        [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or driver.poll() is not None:
                    raise
                time.sleep(0.05)
        browser = Browser(port, folder / "profile")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(timeout=10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_in(tmp_path_factory.mktemp("browser")) as running:
        yield running


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
    assert browser.run(hover) == "vision.core.experiment.Experiment"


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


# Colours are blended down to the page's own, since cells of the heat map are half transparent.
CONTRAST = """
const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
const parse = (c) => (numbers(c).length < 4 ? [...numbers(c), 1] : numbers(c));
const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
function ground(e) {
  const layers = [];
  for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
}
const light = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const low = new Set();
for (const e of document.querySelectorAll("body *:not(script)")) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
  if (!e.getClientRects().length) continue;
  const back = ground(e);
  const [a, b] = [light(over(parse(getComputedStyle(e).color), back)), light(back)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const what = `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`;
  if (ratio < 4.5) low.add(`${ratio.toFixed(2)} ${what}`);
}
return [...low];
"""


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
    assert browser.run("return document.scripts.length") == 2  # one chart's data and the page's own
    assert browser.run("return document.querySelectorAll('[onerror], img[src=x]').length") == 0
    assert evil in browser.run("return document.body.textContent")
