"""The documents as a site, opened from the disk in a real browser: complete, and searched."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.report.browser import Browser, needs_browser

ROOT = Path(__file__).resolve().parents[2]
MKDOCS = ROOT / ".venv-docs" / "bin" / "python"
FOUND = "return [...document.querySelectorAll('.md-search-result__link')].map((x) => x.href)"
pytestmark = [
    needs_browser,
    pytest.mark.slow,
    pytest.mark.skipif(not MKDOCS.exists(), reason="needs the environment of make docs"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [MKDOCS, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("width", [1400, 480])
@pytest.mark.parametrize(
    ("words", "page"), [("deletion insertion", "explain"), ("patience", "objectives")]
)
def test_the_search_finds_pages_from_the_disk(
    words: str, page: str, width: int, site: Path, browser: Browser
):
    browser.open(site / "index.html", width)
    if width < 1220:
        browser.click("label.md-header__button[for=__search]")
    deadline = time.monotonic() + 30
    browser.type("input.md-search__input", words)
    while not (found := browser.run(FOUND)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert any(f"{site.as_uri()}/{page}.html" in each for each in found), found
    browser.visit(next(each for each in found if f"/{page}.html" in each), width)
    assert browser.run("return document.querySelector('h1') !== null")
    assert browser.messages() == []


def test_nothing_comes_from_the_network(site: Path):
    """A page names no script, style or picture of another machine."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, page.name
        assert 'rel="stylesheet" href="http' not in text, page.name
