"""Results of claims: read as they were written, and stale when their code has changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.papers.example_tree import (
    CLAIM,
    WORSE,
    finish,
    header,
    repository,
    result,
)
from vision.papers.ledger import dependencies, depends, faults, margin_fault
from vision.papers.measured import Measured, Side
from vision.papers.results import ResultError, read, write

AGAIN = "python -m vision.papers claim margin --record"


def test_every_claim_has_a_fresh_result_and_every_result_a_claim():
    wrong = faults()
    assert not wrong, "\n".join(wrong)


def test_a_result_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "result.json"
    other = result(parity=None, seeds=(), control=None, compared=WORSE, premises=(), measured=())
    alone = Measured("R@1", Side("new", (0.5,)), Side("old", (0.1,)))
    for written in (result(), other, result(compared=alone)):
        write(written, path)
        assert read(path) == written


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plain: plain.update(outcome="refuted"), "outcome 'refuted' is not that of the num"),
        (lambda plain: plain.update(interval=[0.0, 1.0]), "interval"),
        (lambda plain: plain.update(failed=["reach"]), "failed"),
        (lambda plain: plain["margin"].update(value=-1), "margin is -1"),
        (lambda plain: plain["margin"].update(rule=""), "rule of the margin"),
        (lambda plain: plain["scale"].update(best=0.0), "scale from"),
        (lambda plain: plain["premises"][0].update(at_least=None), "has no bound"),
        (lambda plain: plain["compared"].update(baseline=None), "do not come in pairs"),
        (lambda plain: plain.update(claim=" "), "claim"),
        (lambda plain: plain.update(seconds=-1), "seconds"),
        (lambda plain: plain.update(seeds=[0.5]), "seeds"),
        (lambda plain: plain.update(depends={}), "depends"),
        (lambda plain: plain.update(note="more"), "note"),
        (lambda plain: plain.pop("parity"), "parity"),
        (lambda plain: plain["measured"][0]["method"].update(mean=0.9), "mean"),
        (lambda plain: plain["measured"][0]["baseline"].update(values=[]), "values"),
    ],
)
def test_a_malformed_result_is_refused(damage: Callable[[Any], object], words: str, tmp_path: Path):
    path = tmp_path / "result.json"
    write(result(), path)
    plain = json.loads(path.read_text())
    damage(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ResultError, match=rf"result\.json: .*{words}"):
        read(path)


def test_a_claim_depends_on_its_method_and_not_on_the_house(tmp_path: Path):
    folder = repository(tmp_path)
    found = dependencies(folder / "claim.py", tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): names for path, names in found.items()} == {
        "papers/margin/claim.py": {""},
        "papers/margin/config.py": {"get_config"},
        "papers/margin/method.py": {"Loss"},
        "configs/small.py": {"base"},
        "vision/blocks/sums.py": {"total"},
        "vision/models/tower.py": {"Tower"},  # the claim itself imports it
    }


def test_what_is_imported_within_a_function_or_passed_on_counts(tmp_path: Path):
    folder = repository(tmp_path)
    (tmp_path / "vision" / "blocks" / "__init__.py").write_text(
        "from vision.blocks.sums import total\n"
    )
    (folder / "config.py").write_text(
        "def get_config():\n    from vision.blocks import total\n    return total\n"
    )
    (folder / "method.py").write_text("Loss = 1\n")
    names = dependencies(folder / "claim.py", tmp_path)
    assert names[tmp_path / "vision" / "blocks" / "sums.py"] == {"total"}


def test_what_the_public_face_offers_is_followed(tmp_path: Path):
    folder = repository(tmp_path)
    (tmp_path / "vision" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
        "    from vision.blocks import sums as sums\n    from vision.run.loop import STEP as STEP\n"
    )
    (folder / "config.py").write_text(
        "import vision as v\n\n\ndef get_config():\n    return v.sums.total(v.STEP)\n"
    )
    (folder / "method.py").write_text("from vision import sums\n\nLoss = print(sums)\n")
    names = dependencies(folder / "claim.py", tmp_path)
    assert names[tmp_path / "vision" / "blocks" / "sums.py"] == {"total", ""}
    assert not names.keys() & {
        tmp_path / "vision" / each for each in ("__init__.py", "run/loop.py")
    }


def test_names_passed_on_in_a_circle_lead_nowhere(tmp_path: Path):
    folder = repository(tmp_path)
    (folder / "config.py").write_text("from papers.margin.method import get_config\n")
    (folder / "method.py").write_text("from papers.margin.config import get_config\n\nLoss = 1\n")
    assert len(dependencies(folder / "claim.py", tmp_path)) == 4


def test_a_stale_result_is_refused_with_the_way_out(tmp_path: Path):
    folder = repository(tmp_path)
    finish(folder, tmp_path)
    assert faults(tmp_path) == []
    # Words about the code, its layout, names of locals, and the house, change nothing.
    sums = tmp_path / "vision" / "blocks" / "sums.py"
    sums.write_text(
        '# New.\n\ndef total(x):\n    """Sums.\n\n    All.\n    """\n\n    return (x)\n'
    )
    (tmp_path / "vision" / "run" / "loop.py").write_text("STEP = 2\n")
    # Nor does a neighbour that nobody here names.
    method = folder / "method.py"
    method.write_text(method.read_text() + "\n\ndef other(x):\n    return 2 * x\n")
    assert faults(tmp_path) == []
    sums.write_text("def total(x):\n    return x + 0\n")
    assert faults(tmp_path) == [f"margin: stale, vision/blocks/sums.py changed: {AGAIN}"]


def test_missing_and_left_over_results_are_named(tmp_path: Path):
    folder = repository(tmp_path)
    assert faults(tmp_path) == [f"margin: no result: {AGAIN}"]
    finish(folder, tmp_path)
    (folder / "claim.py").unlink()
    assert faults(tmp_path) == [
        f"{folder / 'result.json'}: there is no claim.py beside it; remove it"
    ]
    (folder / "result.json").unlink()
    assert faults(tmp_path) == []


def test_an_outcome_that_is_not_the_stated_one_fails(tmp_path: Path):
    folder = repository(tmp_path)
    with pytest.raises(
        AssertionError, match=rf"(?s)the claim is refuted.*and record it: {AGAIN}"
    ) as failed:
        finish(folder, tmp_path, write=False, compared=WORSE)
    assert f"write expected='refuted' and what was seen in {folder / 'claim.py'}" in str(
        failed.value
    )
    with pytest.raises(AssertionError, match=r"(?s)is undecided.*no negative control was run"):
        finish(folder, tmp_path, write=False, control=None)
    with pytest.raises(ValueError, match="one of held, refuted, undecided"):
        finish(folder, tmp_path, write=False, expected="yes")
    assert faults(tmp_path) == [f"margin: no result: {AGAIN}"]


def test_a_recorded_outcome_is_kept_and_the_file_is_to_say_it(tmp_path: Path):
    folder = repository(tmp_path)
    claim = folder / "claim.py"
    with pytest.raises(AssertionError, match="is written and stays valid"):
        finish(folder, tmp_path, compared=WORSE)
    assert claim.read_text() == CLAIM
    recorded = read(folder / "result.json")
    assert recorded.outcome == "refuted"
    assert recorded.depends == depends(claim, tmp_path)
    assert "it is refuted; write expected='refuted' in" in faults(tmp_path)[0]
    claim.write_text(CLAIM.replace('"held"', '"refuted"').replace("seen", "told"))
    assert faults(tmp_path) == []


def test_an_outcome_that_turns_within_the_spread_of_the_seeds_is_a_tie(tmp_path: Path):
    folder = repository(tmp_path)
    old = Side("old", (0.1, 0.3, 0.2, 0.3, 0.1))

    def near(*values: float) -> Measured:
        return Measured("R@1", Side("new", values), old)

    finish(folder, tmp_path, compared=near(0.3, 0.5, 0.4, 0.5, 0.3))
    turned = near(0.2, 0.4, 0.3, 0.4, 0.2)
    with pytest.warns(UserWarning, match="on this processor the claim is a tie"):
        finish(folder, tmp_path, write=False, compared=turned)
    with pytest.raises(AssertionError, match="refuted"):
        finish(folder, tmp_path, write=False, compared=near(0.0, 0.1, 0.0, 0.1, 0.0))
    with pytest.raises(AssertionError, match="undecided"):
        finish(folder, tmp_path, compared=turned)


def test_a_margin_is_committed_before_it_is_recorded(tmp_path: Path):
    claim = tmp_path / "claim.py"
    claim.write_text("x = 1\n")
    assert (
        margin_fault(claim)
        == f"{claim}: there is no MARGIN = Margin(value, rule=...) at its top level"
    )
    claim.write_text("MARGIN = Margin(0.1, rule='half')\n")
    assert margin_fault(claim) is None  # not in a git checkout
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    late = f"{claim}: MARGIN is not in the last commit as it stands here; commit it first"
    assert margin_fault(claim) == late
    subprocess.run([*git, "add", "claim.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "A margin"], check=True)
    assert margin_fault(claim) is None
    claim.write_text("# Another word.\nMARGIN = Margin(0.1, rule='half')\ny = 2\n")
    assert margin_fault(claim) is None
    claim.write_text("MARGIN = Margin(0.05, rule='half')\n")
    assert margin_fault(claim) == late


def test_the_claim_of_an_outsider_depends_on_both_houses(tmp_path: Path):
    root, folder = tmp_path / "root", tmp_path / "mine" / "tiny"
    repository(root)
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(header())
    (folder / "method.py").write_text("from vision.blocks.sums import total\n\nLoss = total\n")
    claim = folder / "claim.py"
    claim.write_text("import numpy\nfrom tiny.method import Loss\n\ndef test_it(): Loss\n")
    names = ["tiny/claim.py", "tiny/method.py", "vision/blocks/sums.py"]
    assert list(depends(claim, root)) == names
    finish(folder, root)
    assert list(read(folder / "result.json").depends) == names
