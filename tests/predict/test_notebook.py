"""docs/tour.ipynb was run, shows pictures, and runs again; ``vision.fit`` and what it refuses."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vision
from bench.notebook import PAGE, run
from vision.config import specs
from vision.config.errors import UserError
from vision.run.setup import Outcome

CELLS = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SHORT = {"total": "3 steps", "optimizer.schedule.warmup": "1 steps", "model.depth": "1"}
SHORT |= {"model.width": "16", "model.heads": "2"}


def shown(outputs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(each["output_type"], sorted(each.get("data", {}))) for each in outputs]


def test_every_cell_was_run_in_order():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert all(cell["outputs"] for cell in CODE)
    pictures = [x["data"]["image/png"] for cell in CODE for x in cell["outputs"]
                if "image/png" in x.get("data", {})]  # fmt: skip
    assert pictures
    for each in pictures:
        Image.open(io.BytesIO(base64.b64decode(each))).verify()


@pytest.mark.slow
def test_it_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = run(CELLS)
    assert [shown(each) for each in found] == [shown(cell["outputs"]) for cell in CODE]


def test_fit_trains_goes_on_and_loads(tmp_path: Path):
    first = vision.fit("digits_vit", tmp_path / "w", SHORT)
    again = vision.fit(specs.load("digits_vit", SHORT), tmp_path / "w")
    assert first.classes == again.classes
    rows = (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()
    assert len({json.loads(row)["step"] for row in rows}) == len(rows)  # nothing was done twice


def test_what_fit_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="did you mean 'depth'"):
        vision.fit("digits_vit", tmp_path, {"model.dpeth": "3"})
    with pytest.raises(UserError, match="overrides are for the name of a config"):
        vision.fit(specs.load("digits_vit", SHORT), tmp_path, {"seed": "1"})
    with pytest.raises(UserError, match="has several stages"):
        vision.fit("g_simclr:small", tmp_path)
    monkeypatch.setattr("vision.predict.fit.train", lambda *_, **__: Outcome(1, 2, True, {}))
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        vision.fit("digits_vit", tmp_path / "x", SHORT)
    monkeypatch.setattr("vision.predict.fit.train", lambda *_, **__: Outcome(1, None, False, {}))
    with pytest.raises(UserError, match="could not be saved"):
        vision.fit("digits_vit", tmp_path / "x", SHORT)
