"""The page of papers in a real browser: search, filters, the keyboard, narrow and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.papers.example_tree import WORSE, header, repository, result
from tests.report.browser import CONTRAST, Browser, browser_in, needs_browser
from vision.papers import discover, gallery
from vision.papers.measured import Measured, Side
from vision.papers.outcome import Scale
from vision.papers.results import write

pytestmark = needs_browser
SHOWN = "return [...document.querySelectorAll('article:not([hidden])')].map((e) => e.id)"
CUT = """
return [...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  const hides = e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible";
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5 || hides);
}).map((e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three papers, with long names and numbers."""
    root = tmp_path_factory.mktemp("site")
    folder = repository(root)
    long = Measured(
        "memory of exemplars and of two networks, bytes",
        Side(
            "replay, distillation and alignment (two networks, 100 exemplars)", (58512.0, 58056.0)
        ),
        Side("replay_" * 12, (1e-31, 29896.123)),
    )
    scale = Scale(best=60_000.0)
    write(
        result(measured=(long, long), compared=long, control=None, scale=scale),
        folder / "result.json",
    )
    for name, tags in (("lost", ("ranking",)), ("plain", ("data-set",))):
        other = root / "papers" / name
        other.mkdir()
        (other / "__init__.py").write_text(header(title=f"On {name} things", card=None, tags=tags))
    write(result(compared=WORSE), root / "papers" / "lost" / "result.json")
    page = root / "papers.html"
    page.write_text(gallery.render(discover.all_papers(root), root))
    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_in(tmp_path_factory.mktemp("browser")) as started:
        yield started


def test_papers_are_found_by_words_tags_and_outcome(browser: Browser, site: Path):
    browser.open(site)
    assert browser.run(SHOWN) == ["lost", "margin", "plain"]
    browser.type("[data-words]", "MARGIN finds")
    assert browser.run(SHOWN) == ["margin"]
    assert browser.run("return document.querySelector('output').textContent") == "1 of 3 papers"
    browser.click("[data-reset]")
    browser.click('#lost [data-tag="ranking"]')
    assert browser.run(SHOWN) == ["lost", "margin"]
    assert browser.run(
        "return document.querySelector('[data-tag=ranking]').getAttribute('aria-pressed')"
    ) == "true"  # fmt: skip
    browser.run(
        "const s = document.querySelector('[data-by=outcome]'); s.value = 'refuted';"
        "s.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    assert browser.run(SHOWN) == ["lost"]
    browser.type("[data-words]", "nothing of this")
    assert browser.run(SHOWN) == []
    assert browser.run("return !document.querySelector('[data-none]').hidden")
    assert browser.messages() == []


def test_the_keyboard_is_enough(browser: Browser, site: Path):
    browser.open(site)
    browser.type("body", "/")
    assert browser.run("return document.activeElement.matches('[data-words]')")
    browser.type("[data-words]", "lost")
    assert browser.run(SHOWN) == ["lost"]
    browser.type("[data-words]", "\ue00c")  # Escape
    assert browser.run(SHOWN) == ["lost", "margin", "plain"]
    browser.run("document.querySelector('#margin [data-tag=image-text]').focus()")
    browser.type("#margin [data-tag=image-text]", " ")
    assert browser.run(SHOWN) == ["margin"]


@pytest.mark.parametrize("width", [1400, 480, 320])
def test_nothing_is_cut(browser: Browser, site: Path, width: int):
    browser.open(site, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run(CUT) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser: Browser, site: Path, scheme: str):
    browser.scheme(scheme)
    browser.open(site)
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run(CONTRAST) == []
    browser.scheme("light")
