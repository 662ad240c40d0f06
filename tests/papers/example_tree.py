"""A small repository of papers, made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vision.papers.claims import Recorder
from vision.papers.measured import Measured, Parity, Side
from vision.papers.outcome import Margin, Premise, Scale
from vision.papers.results import Result

OLD = Side("old", (0.1, 0.2, 0.3, 0.2, 0.2))
COMPARED = Measured("R@1", Side("new", (0.5, 0.6, 0.7, 0.6, 0.5)), OLD)
WORSE = Measured("R@1", Side("new", (0.05, 0.1, 0.2, 0.1, 0.1)), OLD)
CONTROL = Measured("R@1, words shuffled", Side("new", (0.1, 0.1, 0.3, 0.2, 0.2)), OLD)
MEASURED = (Measured("R@5", Side("new", (0.8, 0.9)), Side("old", (0.4, 0.5))),)
MARGIN = Margin(0.1, rule="half of the 20 points that the authors report")
SCALE = Scale(chance=0.01)
CLAIM = '''"""What was seen."""

import vision.run.loop
from configs.small import base
from papers.margin.config import get_config
from papers.margin.method import Loss
from vision.data.source import Source
from vision.models.tower import Tower

MARGIN = Margin(0.1, rule="half of it")


def test_it(record):
    vision.run.loop.STEP, Source.size
    record(claim="It finds more.", expected="held")
'''
FILES = {
    "papers/__init__.py": "",
    "papers/margin/claim.py": CLAIM,
    "papers/margin/config.py": "from configs.small import base\n\ndef get_config(): base()\n",
    "papers/margin/method.py": "from vision.blocks import sums\n\nLoss = sums.total\n",
    "configs/small.py": "from vision.models.tower import Tower\n\ndef base(): ...\n",
    "vision/run/loop.py": "STEP = 1\n",
    "vision/data/source.py": "SOURCE = 1\n",
    "vision/models/tower.py": "class Tower: ...\n",
    "vision/blocks/sums.py": 'def total(x):\n    """Adds up."""\n    return x  # all of it\n',
}


def header(**changes: Any) -> str:
    """The source of an ``__init__.py``."""
    given: dict[str, Any] = {
        "title": "A Margin for Pairs",
        "year": 2020,
        "card": 3,
        "tags": ("ranking", "image-text"),
        "headline": "It is best on all pairs.",
    }
    fields = ", ".join(f"{name}={value!r}" for name, value in {**given, **changes}.items())
    return f"from vision.papers import Paper\n\nPAPER = Paper({fields})\n"


def repository(root: Path) -> Path:
    """One paper with a claim without a result; returns its folder."""
    for name, text in {**FILES, "papers/margin/__init__.py": header()}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "papers" / "margin"


def result(**changes: Any) -> Result:
    """One that held, by default."""
    fields: dict[str, Any] = {
        "claim": "The new one finds more.",
        "compared": COMPARED,
        "margin": MARGIN,
        "scale": SCALE,
        "premises": (Premise("top-1 of the start", (0.9, 0.95), at_least=0.8),),
        "control": CONTROL,
        "measured": MEASURED,
        "seeds": (0, 1, 2, 3, 4),
        "seconds": 12.5,
        "parity": Parity("peer", "1.0", 1e-7),
        "depends": {"papers/margin/claim.py": "0"},
    }
    return Result(**{**fields, **changes})


def finish(folder: Path, root: Path, write: bool = True, **changes: Any) -> None:
    """Ends the claim of a paper as its fixture would."""
    given: dict[str, Any] = {
        "expected": "held",
        "compared": COMPARED,
        "margin": MARGIN,
        "scale": SCALE,
        "control": CONTROL,
        "measured": MEASURED,
    }
    Recorder.begin(folder / "claim.py", write, root)(claim="It finds more.", **{**given, **changes})
