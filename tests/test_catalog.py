"""The catalog: everything public is in it with a line, and words find it."""

from __future__ import annotations

from pathlib import Path

import pytest

import vision
from vision.catalog import KINDS, Line, catalog, main, search
from vision.config.cli import run_main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return catalog()


def test_everything_has_a_line(lines: list[Line]):
    assert all(line.text for line in lines), [x.name for x in lines if not x.text]
    assert len({(line.kind, line.name) for line in lines}) == len(lines)
    names = {kind: {x.name for x in lines if x.kind == kind} for kind in ("configs", "methods")}
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert names["configs"] == configs - {"configs/__init__.py"}
    assert names["methods"] == {path.parent.name for path in ROOT.glob("papers/*/__init__.py")}
    public = {x.name for x in lines if x.kind not in ("configs", "methods")}
    for module, exported in vision._NAMES.items():
        for name in exported:
            if module.startswith(KINDS["models"] + KINDS["evaluators"] + KINDS["objectives"]):
                assert name in public, name
    from vision.data import ops

    assert {f"ops.{name}" for name in ops.__all__ if name[0].isupper()} <= public


def test_words_find_it(lines: list[Line]):
    assert "ops.GaussianBlur" in {x.name for x in search(lines, ["BLUR"])}
    assert {x.kind for x in search(lines, [], "evaluators")} == {"evaluators"}
    assert "smmix" in {x.name for x in search(lines, ["mix"], "methods")}
    found = {x.name: x.text for x in lines}
    assert found["ViT"].startswith("Vision transformer (Dosovitskiy et al., 2021) with")
    assert found["Focal"].startswith("The focal loss: what is classified well")


def test_the_command(capsys: pytest.CaptureFixture[str]):
    assert run_main(main, ["relevance"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("methods\n  salient_relevance")
    assert run_main(main, ["Classifi", "--kind=objectives"]) == 0
    assert run_main(main, ["xyzzy"]) == 1
    assert "nothing has 'xyzzy'" in capsys.readouterr().out
    assert run_main(main, ["--kind=model"]) == 2
    assert "did you mean models?" in capsys.readouterr().err
