"""The command line of papers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.papers.example_tree import finish, header, repository
from vision.config.cli import run_main
from vision.papers import __main__ as program
from vision.papers import discover


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two papers, one with a result, as the repository of the command."""
    folder = repository(tmp_path)
    finish(folder, tmp_path)
    other = tmp_path / "papers" / "other"
    other.mkdir()
    title = "Another, with a Title of More Words than a Line of a Terminal has Room for"
    (other / "__init__.py").write_text(header(title=title, card=None, tags=("retrieval",)))
    monkeypatch.setattr(discover, "home", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> int:
    return run_main(program.main, list(arguments))


def test_list(root: Path, capsys: pytest.CaptureFixture[str]):
    assert call("list") == 0
    head, _, first, second, count = capsys.readouterr().out.splitlines()
    assert head.split() == ["slug", "card", "year", "title", "tags", "outcome"]
    cells = ["margin", "3", "2020", "A Margin for Pairs", "ranking image-text", "held"]
    assert re.split(r"  +", first) == cells
    assert "than a Line of a Termin…" in second
    assert second.endswith("  retrieval           none")
    assert count == "2 of 2 papers"
    for arguments, found in (
        (["margin", "PAIRS"], "1 of 2"),
        (["--tag=retrieval"], "1 of 2"),
        (["--outcome=held", "--tag=ranking", "finds"], "1 of 2"),
        (["--outcome=undecided"], "0 of 2"),
    ):
        assert call("list", *arguments) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(found)


def test_show(root: Path, capsys: pytest.CaptureFixture[str]):
    assert call("show", "margin") == 0
    printed = capsys.readouterr().out
    for words in (
        "A Margin for Pairs, 2020\ncard 3\ntags: ranking, image-text\n",
        "the authors report: It is best on all pairs.",
        "config: papers/margin/config.py",
        "outcome: held\n  paired difference +0.38 [+0.324, +0.436], 95 % interval; margin 0.1\n",
        "  R@1: new 0.58 ± 0.084 against old 0.2 ± 0.071\n",
        "  the margin is half of the 20 points that the authors report\n5 seeds, ",
    ):
        assert words in printed
    assert "stale" not in printed
    (root / "papers" / "margin" / "method.py").write_text("Loss = 3\n")
    assert call("show", "papers/margin") == 0
    assert "margin: stale, papers/margin/method.py" in capsys.readouterr().out


def test_gallery(root: Path, capsys: pytest.CaptureFixture[str]):
    assert call("gallery", "--out=papers.html") == 0
    assert capsys.readouterr().out == "written to docs/papers.md\nwritten to papers.html\n"
    assert "### [A Margin for Pairs](../papers/margin), 2020" in Path("docs/papers.md").read_text()
    assert 'href="papers/margin/config.py"' in Path("papers.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lits"], "no command 'lits': did you mean list?"),
        (["nothing"], "one of list, show"),
        (["show"], "show needs one slug or folder of a paper, not 0"),
        (["show", "magrin"], "there is no paper 'magrin': did you mean margin?"),
        (["show", "xyzzy"], "see python -m vision.papers list"),
        (["list", "--tag=rankin"], "--tag=rankin: did you mean ranking?"),
        (["list", "--outcome=lost"], "--outcome=lost: there are held, refuted, undecided"),
        (["list", "--tag"], "--tag needs a value"),
        (["list", "--tga=x"], "unknown flag --tga; did you mean --tag?"),
        (["claim"], "claim needs slugs or folders"),
        (["claim", "margin", "--all"], "claim needs slugs or folders"),
        (["claim", "other"], "other has no claim"),
        (["claim", "--all", "--budget_s=3"], "beside --sample"),
        (["claim", "--sample", "--budget_s=x"], "--budget_s=x: seconds"),
        (["claim", "margin", "--record=yes"], "--record takes no value"),
        (["gallery", "x"], "gallery takes no 'x'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, root: Path, capsys: pytest.CaptureFixture[str]
):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]):
    assert call("--help") == 0
    assert "claim --sample [--budget_s=90]" in capsys.readouterr().out
    assert call() == 2
    with pytest.raises(SystemExit, match="0"):
        call("list", "--help")
    assert "--outcome" in capsys.readouterr().out
