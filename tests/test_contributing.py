"""The examples of CONTRIBUTING.md, put into a folder, train and evaluate together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_examples_train_and_evaluate(tmp_path: Path):
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S)
    names = [name for name, _ in blocks]
    stems = ["tower", "stripes", "salt", "confident", "confidence", "config"]
    assert names == [f"{stem}.py" for stem in stems]
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in blocks:
        (folder / name).write_text(text)
        length = len([line for line in text.splitlines() if line.strip()])
        assert length <= (14 if name != "config.py" else 24), name
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONPATH"}
    train = [str(ROOT / "train.py"), f"--config={folder / 'config.py'}", "--workdir=w"]
    for command in (train, [str(ROOT / "evaluate.py"), "--workdir=w"]):
        ran = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "w" / "evaluation.json").read_text())["evaluators"]
    metrics = {name: each["metrics"] for name, each in written.items()}
    assert metrics["test"]["top1"] == 1.0
    assert 0.5 < metrics["sure"]["confidence"] <= 1.0
    recorded = json.loads((tmp_path / "w" / "modules.json").read_text())
    assert recorded.pop("_crc32")
    assert {f"{name}.py" for name in recorded} == {*names} - {"config.py"}


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
