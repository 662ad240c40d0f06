"""What messages say to install is what pyproject.toml says, and is ours."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from vision.config.extras import EXTRAS, pip_install

ROOT = Path(__file__).resolve().parents[1]


def test_the_packages_are_those_of_the_extras():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["optional-dependencies"]
    assert {name: list(packages) for name, packages in EXTRAS.items()} == {
        name: declared[name] for name in EXTRAS
    }
    assert pip_install("sweep") == "pip install 'optuna>=5,<6'"


def test_nobody_is_sent_to_another_project_of_this_name():
    """PyPI has one: ``pip install 'vision[serve]'`` is ours only where ours is installed."""
    places = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    places += [path for path in (ROOT / "vision").rglob("*.py") if path.name != "extras.py"]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in places
        for match in re.finditer(r"pip install\W+vision\b(?!-)", path.read_text(encoding="utf-8"))
    ]
    assert found == []
