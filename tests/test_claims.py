"""Claims and their results: well-formed, fresh, complete, and told as they came out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vision.papers.sample import sample

from vision.papers.claims import Recorder
from vision.papers.ledger import (
    ROOT,
    LedgerError,
    Measured,
    Parity,
    Result,
    Side,
    code,
    dependencies,
    depends,
    faults,
    read,
    write,
)
from vision.report.methods import DOCUMENT, collect, document

MEASURED = (Measured("R@1", Side("new", (0.5, 0.6, 0.7)), Side("old", (0.1, 0.2, 0.3))),)
CLAIM = """
import vision.train.step
from configs.small import get_config
from vision.data.source import Source
from vision.objectives.loss import Loss
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one claim without a result."""
    files = {
        "claims/pairs/test_margin.py": CLAIM,
        "configs/small.py": "from vision.models.tower import Tower\n\ndef get_config(): ...\n",
        "vision/train/step.py": "STEP = 1\n",
        "vision/data/source.py": "SOURCE = 1\n",
        "vision/models/tower.py": "class Tower: ...\n",
        "vision/objectives/loss.py": "from vision.blocks import sums\n\nLoss = sums.total\n",
        "vision/blocks/sums.py": 'def total(x):\n    """Adds up."""\n    return x  # all of it\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "card": 3,
        "paper": "A Paper, 2020",
        "claim": "The new one finds more.",
        "holds": True,
        "measured": MEASURED,
        "seeds": (0, 1, 2),
        "seconds": 12.5,
        "parity": Parity("peer", "1.0", 1e-7),
        "depends": {"claims/pairs/test_margin.py": "0"},
    }
    return Result(**{**fields, **changes})


def finish(root: Path, write: bool = True, **changes: Any) -> None:
    """Ends the claim of ``root`` as its fixture would."""
    given: dict[str, Any] = {"expected": True, "holds": True, "measured": MEASURED}
    record = Recorder.begin(root / "claims" / "pairs" / "test_margin.py", write, root)
    record(card=3, paper="A Paper, 2020", claim="It finds more.", **{**given, **changes})


def test_every_claim_has_a_fresh_result_and_every_result_a_claim():
    wrong = faults()
    assert not wrong, "\n".join(wrong)


def test_the_page_of_claims_is_current():
    page = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert page == document(collect()), "python -m vision.report.methods"


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "x.json"
    for written in (result(), result(parity=None, seeds=(), holds=False)):
        write(written, path)
        assert read(path) == written


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plain: plain.update(card="3"), "card"),
        (lambda plain: plain.update(card=0), "card"),
        (lambda plain: plain.update(holds="yes"), "holds"),
        (lambda plain: plain.update(claim=" "), "claim"),
        (lambda plain: plain.update(seconds=-1), "seconds"),
        (lambda plain: plain.update(seeds=[0.5]), "seeds"),
        (lambda plain: plain.update(measured=[]), "measured"),
        (lambda plain: plain.update(note="more"), "note"),
        (lambda plain: plain.pop("parity"), "parity"),
        (lambda plain: plain["measured"][0]["method"].update(mean=0.9), "mean"),
        (lambda plain: plain["measured"][0]["baseline"].update(values=[]), "values"),
    ],
)
def test_a_malformed_result_is_refused(damage: Callable[[Any], object], words: str, tmp_path: Path):
    path = tmp_path / "x.json"
    write(result(), path)
    plain = json.loads(path.read_text())
    damage(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(LedgerError, match=words):
        read(path)


def test_a_claim_depends_on_its_method_and_not_on_the_house(root: Path):
    claim = root / "claims" / "pairs" / "test_margin.py"
    names = [path.relative_to(root).as_posix() for path in dependencies(claim, root)]
    assert sorted(names) == [
        "claims/pairs/test_margin.py",
        "configs/small.py",
        "vision/blocks/sums.py",
        "vision/objectives/loss.py",
    ]


def test_a_stale_result_is_refused_with_the_way_out(root: Path):
    finish(root)
    assert faults(root) == []
    # Words about the code, and the house, change nothing.
    sums = root / "vision" / "blocks" / "sums.py"
    sums.write_text('# New.\n\ndef total(x):\n    """Sums.\n\n    All.\n    """\n\n    return x\n')
    (root / "vision" / "core" / "step.py").write_text("STEP = 2\n")
    # Nor does a neighbour that nobody here names.
    loss = root / "vision" / "objectives" / "loss.py"
    loss.write_text(loss.read_text() + "\n\ndef other(x):\n    return 2 * x\n")
    assert faults(root) == []
    sums.write_text("def total(x):\n    return x + 0\n")
    again = "python -m pytest claims/pairs/test_margin.py --record"
    assert faults(root) == [f"margin: stale, vision/blocks/sums.py changed: {again}"]


def test_missing_and_left_over_results_are_named(root: Path):
    assert "margin: no result" in faults(root)[0]
    finish(root)
    results = root / "claims" / "results"
    (results / "margin.json").rename(results / "other.json")
    assert [line.split(":")[0] for line in faults(root)] == ["other.json", "margin"]


def test_code_is_what_runs():
    source = 'def f(x):  # why\n    """Doc."""\n\n    return "# no comment", x\n'
    assert code(source) == 'def f(x):\n    return "# no comment", x'
    assert code("A = 1\n\n\n@cache\ndef f(): ...\n\n\nB: int = 2\n", ["f", "B"]) == (
        "@cache\ndef f(): ...\nB: int = 2"
    )


def test_an_outcome_that_is_not_the_stated_one_fails_and_is_not_recorded(root: Path):
    with pytest.raises(AssertionError, match="did not hold"):
        finish(root, write=False, holds=False)
    with pytest.raises(AssertionError, match="but the claim held"):
        finish(root, write=False, expected=False)
    # Nor where the file does not state it in so many words.
    with pytest.raises(AssertionError, match="did not hold"):
        finish(root, holds=False)
    assert "no result" in faults(root)[0]
    finish(root, expected=False, holds=False)
    recorded = read(root / "claims" / "results" / "margin.json")
    assert recorded.holds is False
    assert recorded.depends == depends(root / "claims" / "pairs" / "test_margin.py", root)


def test_a_run_that_is_recorded_puts_its_outcome_into_the_file(root: Path):
    claim = root / "claims" / "pairs" / "test_margin.py"
    claim.write_text(f"{CLAIM}\nrecord(expected=True)\n")
    finish(root, holds=False)
    assert claim.read_text() == f"{CLAIM}\nrecord(expected=False)\n"
    recorded = read(root / "claims" / "results" / "margin.json")
    assert recorded.holds is False
    assert recorded.depends == depends(claim, root)


def test_the_sample_fits_the_budget_and_comes_round_to_every_claim():
    claims = [
        (Path(name), seconds) for name, seconds in zip("abcde", (40, 50, 300, 20, 1), strict=True)
    ]
    assert sample(claims, 0, 90) == [Path("a"), Path("b")]
    assert sample(claims, 4, 90) == [Path("e"), Path("a"), Path("d")]
    assert sample(claims, 7, 90) == [Path("c")]
    assert {sample(claims, turn, 90)[0] for turn in range(5)} == {path for path, _ in claims}
    assert sample([], 3, 90) == []


def test_an_outcome_that_turns_within_the_spread_of_the_seeds_is_a_tie(root: Path):
    finish(root)
    near = (Measured("R@1", Side("new", (0.4, 0.5, 0.6)), Side("old", (0.2, 0.3, 0.4))),)
    far = (Measured("R@1", Side("new", (0.1, 0.2, 0.3)), Side("old", (0.1, 0.2, 0.3))),)
    with pytest.warns(UserWarning, match="on this processor the claim is a tie"):
        finish(root, write=False, holds=False, measured=near)
    with pytest.raises(AssertionError, match="did not hold"):
        finish(root, write=False, holds=False, measured=far)
    with pytest.raises(AssertionError, match="did not hold"):
        finish(root, holds=False, measured=near)
