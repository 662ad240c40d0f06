"""A new paper: its tests pass, it trains, and its claim runs, in the repository and outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vision.papers import discover, scaffold
from vision.papers.discover import PaperError
from vision.papers.ledger import ROOT, dependencies

TRAIN = (
    "--config.total=2 steps",
    "--config.model.depth=1",
    "--config.optimizer.schedule.warmup=0 steps",
    "--config.evaluators=None",
)


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository like this one, with no papers yet."""
    folder = tmp_path / "root"
    (folder / "papers").mkdir(parents=True)
    (folder / "papers" / "__init__.py").touch()
    (folder / "vision").symlink_to(ROOT / "vision")
    return folder


@pytest.mark.slow
def test_an_outsider_starts_from_files_that_work(tmp_path: Path):
    """The tests pass and two steps train, without PYTHONPATH, from another folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = scaffold.place(str(tmp_path / "mine" / "simple_net"), ROOT)
    files = scaffold.write(folder, ROOT, "A Simple Net", 2024)
    assert [path.name for path in files] == ["__init__.py", *scaffold.FILES]
    entry = discover.read_folder(folder)
    assert (entry.paper.title, entry.paper.year, entry.outcome) == ("A Simple Net", 2024, "none")
    for path in files:
        text = path.read_text()
        assert "xample" not in text
        assert "vision.papers.simple_net" not in text
    printed = run("-m", "pytest", "-q", str(folder), cwd=elsewhere, PYTHONPATH=str(ROOT))
    assert "3 passed" in printed
    flags = ("--workdir=run", *TRAIN)
    run(str(ROOT / "train.py"), f"--config={folder}:small,weight=0", *flags, cwd=elsewhere)
    *_, row = map(json.loads, (elsewhere / "run" / "metrics.jsonl").read_text().splitlines())
    assert row["step"] == 2
    assert 0 < row["train/entropy"] < 2.4


def test_a_paper_of_the_repository_starts_from_files_that_work(root: Path):
    folder = scaffold.place("sim_clr", root)
    assert folder == root / "papers" / "sim_clr"
    scaffold.write(folder, root)
    assert discover.read_folder(folder).paper.title == "Sim Clr"
    assert "class SimClr(Objective):" in (folder / "method.py").read_text()
    assert "from papers.sim_clr.method import SimClr" in (folder / "config.py").read_text()
    printed = run("-m", "pytest", "-q", str(folder), cwd=root, PYTHONPATH=str(root))
    assert "3 passed" in printed
    names = [path.name for path in dependencies(folder / "claim.py", root)]
    assert {"claim.py", "config.py", "method.py", "classify.py"} <= set(names)
    lint = ["check", "--isolated", "--select=E,F,I,W", "--line-length=100", "--config"]
    lint += ['lint.isort.known-first-party = ["vision", "papers"]', str(folder)]
    run("-m", "ruff", *lint, cwd=root)
    run("-m", "ruff", "format", "--check", "--line-length=100", str(folder), cwd=root)


def test_a_long_title_stays_within_the_line(root: Path):
    title = 'A "long" title ' + "of words " * 20 + "and an end"
    folder = root / "papers" / "long"
    scaffold.write(folder, root, title)
    assert discover.read_folder(folder).paper.title == title
    assert max(map(len, (folder / "__init__.py").read_text().splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sim-CLR", "'Sim-CLR' is no slug"),
        ("class", "'class' is no slug"),
        ("json", "'json' is the name of an installed package"),
        ("./numpy", "'numpy' is the name of an installed package"),
        ("taken", "taken exists"),
        ("", "'' is no slug"),
    ],
)
def test_a_name_that_will_not_do_is_refused(
    name: str, words: str, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(root)
    (root / "papers" / "taken").mkdir()
    with pytest.raises(PaperError, match=words):
        scaffold.place(name, root)


def test_without_a_checkout_a_slug_is_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert scaffold.place("sim_clr", tmp_path) == tmp_path / "sim_clr"
