"""axe, an npm package, finds no serious fault on the page of a run, wide and narrow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.browser import AXE, NO_AXE, Browser, needs_browser, serious_faults
from vision.report.run import write_report


@needs_browser
@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason=NO_AXE)
@pytest.mark.parametrize("width", [1400, 480])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_run(width: int, scheme: str, sample: Path, browser: Browser, tmp_path: Path):
    browser.scheme(scheme)
    browser.open(write_report(sample, tmp_path / "report.html"), width)
    assert serious_faults(browser) == []
    browser.run("document.body.innerHTML = '<img src=\"data:,\"><button></button>'")
    assert len(serious_faults(browser)) == 2  # it can find some
    browser.scheme("light")
