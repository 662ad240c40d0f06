"""Every page in a real browser: whole at any width, silent, alone; axe finds no serious fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.browser import AXE, NO_AXE, Browser, look, needs_browser, serious_faults
from tests.report.pages import PAGES
from vision.zoo.page import write_page

pytestmark = needs_browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    for name in PAGES:
        (root / name).mkdir()
    return {name: write(root / name) for name, write in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_it_is_whole_on_a_desk_and_on_a_telephone(
    name: str, pages: dict[str, Path], browser: Browser
):
    for width in (1400, 480):
        look(browser, pages[name], width)
    # On paper, the width of A4 between its margins.
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    look(browser, pages[name], 718)
    browser.devtools("Emulation.setEmulatedMedia", media="")
    titles = "return [document.title, document.querySelector('h1').textContent]"
    in_tab, on_top = browser.run(titles)
    assert in_tab == on_top


@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason=NO_AXE)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(
    name: str, scheme: str, pages: dict[str, Path], browser: Browser
):
    browser.scheme(scheme)
    for width in (1400, 480):
        look(browser, pages[name], width)
        assert serious_faults(browser) == []
    browser.scheme("light")


@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason=NO_AXE)
def test_axe_can_find_faults(browser: Browser, tmp_path: Path):
    (tmp_path / "bad.html").write_text("<html><body><img src='data:,'><button></button>")
    browser.open(tmp_path / "bad.html")
    assert {fault.partition(":")[0] for fault in serious_faults(browser)} >= {
        "image-alt",
        "button-name",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_reaches_everything(name: str, pages: dict[str, Path], browser: Browser):
    """Every control is a stop, and each stop can be seen."""
    browser.open(pages[name], 480)
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    controls = browser.run(
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((e) => e.checkVisibility()).length",
        "a[href], button, select, input, summary, [tabindex='0']",
    )
    seen = browser.run("window.stops = new Set(); return document.activeElement.tagName")
    assert seen == "BODY"
    for _ in range(controls):
        browser.send("/actions", {"actions": [TAB]})
        hidden = browser.run(
            "const e = document.activeElement, s = getComputedStyle(e); window.stops.add(e);"
            "return s.outlineStyle === 'none' ? e.outerHTML.slice(0, 90) : null"
        )
        assert hidden is None
    assert browser.run("return window.stops.size") == controls


TAB = {
    "type": "key",
    "id": "keys",
    "actions": [{"type": "keyDown", "value": "\ue004"}, {"type": "keyUp", "value": "\ue004"}],
}


@pytest.mark.slow
def test_the_zoo(browser: Browser, tmp_path: Path):
    """Its members are asked for what lies near: the page that costs most."""
    write_page(tmp_path / "zoo.html")
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        for width in (1400, 480):
            look(browser, tmp_path / "zoo.html", width)
            assert not AXE.is_file() or serious_faults(browser) == []
    browser.scheme("light")
