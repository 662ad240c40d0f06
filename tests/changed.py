"""The tests of what has changed, for a developer's loop; CI runs all of them.

    python -m tests.changed [--since=main] [--list] [flags of pytest]

Changed are the files that differ from where this branch left ``main``, on ``main`` itself from
the commit before, and files that git does not know yet. Chosen are test files that changed, that
import what changed, and those of papers that depend on it as their claims do
(``vision.papers.ledger.dependencies``: through configs, objectives, blocks and the like, but not
through the loop, the data layer and towers, on which all papers stand).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from vision.papers.ledger import OURS, dependencies
from vision.papers.sources import module_of, resolve

ROOT = Path(__file__).resolve().parents[1]


def changed_files(since: str, root: Path = ROOT) -> set[Path]:
    """Absolute paths of files that differ from ``since``; of those that are gone too."""
    base = _git(root, "merge-base", since, "HEAD")
    if base == _git(root, "rev-parse", "HEAD"):
        base = "HEAD~1"
    lines = _git(root, "diff", "--name-only", "--no-renames", base).splitlines()
    lines += _git(root, "ls-files", "--others", "--exclude-standard").splitlines()
    return {root / line for line in lines}


def chosen_tests(changed: Collection[Path], root: Path = ROOT) -> list[Path]:
    """The test files under ``tests`` and ``papers`` that these files can break, by name.

    What a module only passes on counts as used where it is defined. The files of a paper's
    folder count as the tests there; goldens and conftest.py under ``tests`` choose nothing.
    """
    found = []
    folders = {path.parent for path in changed}
    for path in sorted(p for room in ("tests", "papers") for p in (root / room).rglob("test_*.py")):
        own = path.parent in folders and path.is_relative_to(root / "papers")
        if path in changed or own or not _used(path, root).isdisjoint(changed):
            found.append(path)
    return found


def _used(path: Path, root: Path) -> set[Path]:
    """Files that a test imports, and those of a paper that it depends on beyond these."""
    targets = module_of(path).uses("")[1]
    places = dict.fromkeys((*OURS, "tests", "bench", "train", "evaluate"), root)
    used = {where[1] for target in targets if (where := resolve(target, places))}
    return used | (set(dependencies(path, root)) if path.is_relative_to(root / "papers") else set())


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.changed")
    parser.add_argument("--since", default="main", help="a branch or commit")
    parser.add_argument("--list", action="store_true", help="name the files, run nothing")
    options, flags = parser.parse_known_args(arguments)
    files = [str(path.relative_to(ROOT)) for path in chosen_tests(changed_files(options.since))]
    print("\n".join(files) or "nothing that changed has tests", flush=True)
    if files and not options.list:
        os.execv(sys.executable, [sys.executable, "-m", "pytest", "-m", "not slow", *flags, *files])


if __name__ == "__main__":
    main(sys.argv[1:])
