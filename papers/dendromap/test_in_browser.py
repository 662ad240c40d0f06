"""The explorer in a real browser: zoom, way back, search, overlays, the worst subgroup."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from papers.dendromap.treemap import Images, write_dendromap
from tests.report.browser import CONTRAST, Browser, needs_browser

pytestmark = [needs_browser, pytest.mark.slow]

BOXES = (
    "return [...document.querySelectorAll('#treemap .cell')].map(c => {"
    "const b = c.style; return [parseFloat(b.width) * parseFloat(b.height),"
    "Number(c.title.split(' ')[0].replace(/,/g, ''))]})"
)
STATUS = "return document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 40)
    points = rng.normal(size=(240, 4)) + 12 * np.eye(6, 4)[labels] + 9 * labels[:, None]
    predicted = labels.copy()
    predicted[labels == 3] = 2
    pictures = rng.integers(0, 255, (240, 8, 8), np.uint8)
    names = ("a", "b", "<i>c", "d", "e", "f")
    keys = [f"record/{i}" for i in range(240)]
    images = Images(points, keys, labels, predicted, names, lambda i: pictures[i])
    out = tmp_path_factory.mktemp("map") / "map.html"
    return write_dendromap(images, out)


def test_clicks_zoom_and_the_path_leads_back(browser: Browser, explorer: Path) -> None:
    browser.open(explorer)
    assert browser.messages() == []
    boxes = np.asarray(browser.run(BOXES))
    assert boxes[:, 1].sum() == 240
    np.testing.assert_allclose(boxes[:, 0] / boxes[:, 0].sum(), boxes[:, 1] / 240, rtol=1e-4)
    size = int(browser.run("return document.querySelector('.cell').title.split(' ')[0]"))
    browser.click(".cell .label")
    assert np.asarray(browser.run(BOXES))[:, 1].sum() == size < 240
    assert browser.run("return document.querySelectorAll('#members span').length") == size
    browser.type("#treemap .cell", "\ue00c")  # escape: one up
    assert np.asarray(browser.run(BOXES))[:, 1].sum() > size
    browser.click("#path button")
    assert np.asarray(browser.run(BOXES))[:, 1].sum() == 240


def test_search_worst_subgroup_and_overlays(browser: Browser, explorer: Path) -> None:
    browser.open(explorer)
    browser.type("#find", "record/77")
    assert browser.run("return document.querySelectorAll('.cell.hit').length") == 1
    assert browser.run("return document.querySelector('#members').textContent").startswith(
        "record/77, b"
    )
    browser.run("document.getElementById('find').value = ''")
    browser.type("#find", "<i>c")
    assert "40 found" in browser.run(STATUS)
    browser.click("#worst")
    assert "40 wrong" in browser.run(STATUS)
    assert "40 images, most often d (100%), 40 wrong" in browser.run(STATUS)
    assert browser.run("return document.querySelectorAll('.thumb.mistake').length") > 10
    browser.type("#shade", "mistakes")
    colour = "return getComputedStyle(document.querySelector('.cell')).backgroundColor"
    assert browser.run(colour) == "rgb(201, 84, 10)"


def test_thumbnails_fill_their_cells(browser: Browser, explorer: Path) -> None:
    browser.open(explorer)
    covered = browser.run(
        "const area = (e) => { const b = e.getBoundingClientRect(); return b.width * b.height; };"
        "return [...document.querySelectorAll('.cell')].map((c) => {"
        " const label = c.querySelector('.label');"
        " const thumbs = [...c.querySelectorAll('.thumb')].reduce((sum, t) => sum + area(t), 0);"
        " return thumbs / (c.clientWidth * (c.clientHeight - (label ? label.clientHeight : 0))); })"
    )
    assert min(covered) > 0.97
    assert max(covered) < 1.03


@pytest.mark.parametrize("width", [1300, 420])
def test_it_fits_and_can_be_read(browser: Browser, explorer: Path, width: int) -> None:
    browser.open(explorer, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRAST) == []
