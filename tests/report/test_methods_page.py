"""The page of methods: files that are there, outcomes side by side, a broken result by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vision.config.errors import UserError
from vision.report.methods import collect, document, render


def result(**changes: Any) -> dict[str, Any]:
    side = {"name": "new <b>", "values": [0.5, 0.7], "mean": 0.6, "spread": 0.1414}
    old = {"name": "old", "values": [0.2], "mean": 0.2, "spread": 0.0}
    given = {
        "card": 1,
        "paper": "A | Paper, 2020",
        "claim": "It finds more.",
        "holds": True,
        "measured": [{"what": "R@1", "method": side, "baseline": old},
                     {"what": "error", "method": old, "baseline": None}],
        "seeds": [0, 1],
        "seconds": 12.4,
        "parity": {"peer": "peer", "version": "1.0", "max_error": 3e-7},
    }  # fmt: skip
    return {**given, **changes}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, value in (("one", result()), ("two", result(holds=False, parity=None, seeds=[]))):
        (tmp_path / "claims" / "learning").mkdir(parents=True, exist_ok=True)
        (tmp_path / "claims" / "learning" / f"test_{name}.py").touch()
        (tmp_path / "claims" / "results").mkdir(exist_ok=True)
        (tmp_path / "claims" / "results" / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "claims" / "learning" / "test_three.py").touch()
    method = tmp_path / "vision" / "methods" / "learning" / "one.py"
    method.parent.mkdir(parents=True)
    method.touch()
    return tmp_path


def test_a_row_per_result_with_the_files_that_are_there(root: Path):
    found = collect(root)
    assert [each.slug for each in found] == ["one", "two"]
    first, second = document(found).splitlines()[-2:]
    assert "| A \\| Paper, 2020 | [method](../vision/methods/learning/one.py) |" in first
    assert "](../claims/learning/test_one.py) | held | R@1: new <b> 0.6 ± 0.14 against" in first
    assert first.endswith("old 0.2<br>error: old 0.2 | 2 | 12 | peer 1.0: 3e-07 |")
    assert "| A \\| Paper, 2020 | - |" in second
    assert "| not held |" in second
    assert second.endswith("| - | 12 | - |")


def test_the_page_shows_both_outcomes_alike_and_escapes(root: Path):
    page = render(collect(root))
    assert "2 claims, 1 held" in page
    assert page.count("<td>held</td>") == page.count("<td>not held</td>") == 1
    assert "new &lt;b&gt; 0.6" in page
    assert "1 more" in page


def test_a_broken_result_is_named(root: Path):
    path = root / "claims" / "results" / "one.json"
    path.write_text('{"paper": 1}')
    with pytest.raises(UserError, match=r"one\.json is no result of a claim.*record it again"):
        collect(root)
