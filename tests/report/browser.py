"""A real browser for tests of pages: Chromium, driven without any package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
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
    # Pages scroll smoothly, and a click on what still moves misses it on a busy machine.
    "--force-prefers-reduced-motion",
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
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read())["value"]
            raise AssertionError(f"{path} {body}: {said['error']}: {said['message']}") from None

    def send(self, path: str, body: Any = None, method: str = "POST") -> Any:
        return self._send(f"/session/{self._session}{path}", body, method)

    def open(self, page: Path, width: int = 1400, height: int = 900) -> None:
        self.visit(page.resolve().as_uri(), width, height)

    def visit(self, address: str, width: int = 1400, height: int = 900) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send("/url", {"url": address})

    def devtools(self, command: str, **params: Any) -> Any:
        return self.send("/goog/cdp/execute", {"cmd": command, "params": params})

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.send("/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        element = self.send("/element", {"using": "css selector", "value": selector})
        return next(iter(element.values()))

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


AXE = Path(
    os.environ.get("AXE_CORE")
    or Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
)
NO_AXE = f"needs axe: make node_modules/axe-core/axe.min.js, or AXE_CORE=FILE (no file {AXE})"
_AXE = """
const done = arguments[0];
axe.run(document, { resultTypes: ["violations"] }).then((found) => done(found.violations.map(
  (fault) => [fault.impact, `${fault.id}: ${fault.nodes.map((n) => n.html.slice(0, 120))}`])));
"""


def serious_faults(browser: Browser) -> list[str]:
    """What axe finds on the page that is open and calls serious or critical."""
    browser.run(AXE.read_text(encoding="utf-8"))
    found = browser.send("/execute/async", {"script": _AXE, "args": []})
    return [text for impact, text in found if impact in ("serious", "critical")]


LAYOUT = """
const across = document.documentElement.clientWidth, found = [];
const kind = (e) => e.className.baseVal ?? e.className;
const name = (e) => `${e.tagName}.${kind(e)} ${e.textContent.slice(0, 40)}`;
if (document.documentElement.scrollWidth > across) found.push("the page scrolls sideways");
for (const e of document.querySelectorAll("body *")) {
  const box = e.getBoundingClientRect();
  if (!box.width || !e.checkVisibility() || e.closest(".unseen")) continue;
  if (box.right > across + 1 || box.left < -1) found.push(`cut: ${name(e)}`);
  const style = getComputedStyle(e);
  // Names of classes beside a matrix may end in dots: the pointer has them whole.
  if (e.tagName === "INPUT" || (style.textOverflow === "ellipsis" && e.title)) continue;
  const hides = style.overflowX !== "visible" && !(e instanceof SVGElement);
  const wide = e.clientWidth && e.scrollWidth > e.clientWidth + 1;
  if (hides && wide) found.push(`scrolls: ${name(e)}`);
}
return found;
"""
OUTSIDE = """
return performance.getEntriesByType("resource").map((e) => e.name)
  .filter((n) => !/^(data|blob):/.test(n) && !n.startsWith(location.origin + "/"));
"""


def look(browser: Browser, page: Path | str, width: int) -> None:
    """Opens a page, everything that folds open: it is whole, silent, and asks nobody else."""
    browser.messages()
    if isinstance(page, Path):
        browser.open(page, width)
    else:
        browser.visit(page, width)
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    found = [*browser.run(LAYOUT), *browser.run(OUTSIDE), *browser.messages()]
    assert not found, (width, found)


def until(browser: Browser, script: str) -> Any:
    """The first true value of an expression in the page."""
    deadline = time.monotonic() + 20
    while not (value := browser.run(f"return {script}")):
        assert time.monotonic() < deadline, script
        time.sleep(0.03)
    return value


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
