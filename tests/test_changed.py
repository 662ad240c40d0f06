"""Tests that a change can break are found by what they import and what papers depend on."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.changed import changed_files, chosen_tests
from tests.papers.example_tree import repository


def tree(root: Path) -> Path:
    """A repository with a paper, and a test that imports a block through a module."""
    folder = repository(root)
    (folder / "test_method.py").write_text(
        "from papers.margin.config import get_config\nfrom papers.margin.method import Loss\n"
    )
    blocks = root / "tests" / "blocks"
    blocks.mkdir(parents=True)
    (blocks / "test_sums.py").write_text("from vision.blocks.sums import total\n")
    (blocks / "test_other.py").write_text("from vision.models.tower import Tower\n")
    return folder


def names(root: Path, *changed: str) -> list[str]:
    files = chosen_tests({root / name for name in changed}, root)
    return [path.relative_to(root).as_posix() for path in files]


def test_tests_of_a_change(tmp_path: Path):
    tree(tmp_path)
    paper, sums, other = (
        *("papers/margin/test_method.py", "tests/blocks/test_sums.py"),
        "tests/blocks/test_other.py",
    )
    assert names(tmp_path, "vision/blocks/sums.py") == [paper, sums]
    assert names(tmp_path, "configs/small.py") == [paper]
    assert names(tmp_path, "papers/margin/golden.json") == [paper]
    assert names(tmp_path, "vision/models/tower.py") == [other]
    assert names(tmp_path, other) == [other]
    assert names(tmp_path, "README.md") == []


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def test_what_has_changed_since_the_branch_began(tmp_path: Path):
    git(tmp_path, "init", "--initial-branch=main")
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        git(tmp_path, "add", name)
        git(tmp_path, "commit", "-m", name)
    assert changed_files("main", tmp_path) == {tmp_path / "b"}
    git(tmp_path, "checkout", "-b", "branch")
    (tmp_path / "a").write_text("other")
    git(tmp_path, "commit", "-am", "other")
    (tmp_path / "c").write_text("new")
    assert changed_files("main", tmp_path) == {tmp_path / "a", tmp_path / "c"}
