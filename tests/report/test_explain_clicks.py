"""Concepts that are switched off: the answer on the page is the bottleneck's without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import Browser, needs_browser
from tests.report.pages import CLASSES, CONCEPT_VECTORS, concepts, explained
from vision.report.explain_concepts import said, shown_concepts

ANSWER = "return document.querySelector('[data-answer]').textContent"


def test_the_answer_stands_on_the_page_and_its_concepts_are_escaped():
    page = shown_concepts(concepts(), np.asarray([0.5, 0.5, 0.5], np.float32))
    logits = concepts().model.logits(np.full((1, 3), 0.5))[0]
    assert said(logits, CLASSES[:3]) in page
    assert said(np.log([0.7, 0.1, 0.2]), ("a", "b", "c")) == "a 70.0%, c 20.0%, b 10.0%"
    assert "six &lt;b&gt;legs" in page
    order = ("two wings", "a sting", "six &lt;b")
    assert sorted(order, key=page.index) == list(order)  # by what they add to the answer
    assert page.count("checkbox") == 3


@needs_browser
@pytest.mark.slow
def test_switches_change_the_answer(browser: Browser, tmp_path: Path):
    browser.open(explained(tmp_path))
    model = concepts().model
    raw = (CONCEPT_VECTORS[0] @ CONCEPT_VECTORS.T)[None]
    assert browser.run(ANSWER) == said(model.logits(raw)[0], CLASSES[:3])
    browser.click("[data-concept='0']")
    without = said(model.without(["two wings"]).logits(raw)[0], CLASSES[:3])
    assert browser.run(ANSWER) == f"{without} without 1 concept"
    assert without.startswith(CLASSES[1])
    browser.click("[data-concept='0']")
    assert browser.run(ANSWER) == said(model.logits(raw)[0], CLASSES[:3])
    assert browser.messages() == []
