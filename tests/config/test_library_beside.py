"""A config beside a folder with the library's name, as at the top of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from configs.parts import own_images
from vision.config import own_modules, specs
from vision.config.hints import CONSTRUCTOR

CONFIG = """
import vision as v
from configs.parts import own_images
from mine import Pair

FOUND = own_images


def get_config():
    return v.spec(Pair, left=v.spec(v.Classify), right=v.spec(v.Classify))
"""


def test_the_library_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(own_modules, "_ROOT", tmp_path.resolve())
    for name in ("vision", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('another one')")
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom typing import Any\n\n\n@dataclasses.dataclass(frozen=True)\n"
        "class Pair:\n    left: Any\n    right: Any\n"
    )
    (tmp_path / "config.py").write_text(CONFIG)
    config: Any = specs.load(str(tmp_path / "config.py"))
    assert config.left[CONSTRUCTOR] == "vision.objectives.classify.Classify"
    name = config[CONSTRUCTOR].partition(".")[0]
    assert own_modules.is_own(name)
    assert sys.modules[name].__name__ == name
    loaded = [x for x in sys.modules.values() if getattr(x, "FOUND", None) is own_images]
    assert loaded
