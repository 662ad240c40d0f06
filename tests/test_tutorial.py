"""The tutorial, block by block, as it stands: from a folder of images to a served model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def blocks() -> list[tuple[str, str]]:
    """Language and text of every block, in order."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_every_block_runs(tmp_path: Path):
    for name in ("configs", "papers", "vision", "train.py", "evaluate.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)  # tests compile quickly and run slowly; a reader does not
    served = ""
    for language, text in blocks():
        if "vision.serve" in text:
            served = text
            continue
        if language == "python":
            command = [sys.executable, "-c", text]
        else:
            # What takes time is how long it trains: two epochs do here.
            shorter = text.replace('"20 epochs"', '"2 epochs"')
            command = ["bash", "-ec", re.sub(r"^python\b", sys.executable, shorter, flags=re.M)]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{text}\n{ran.stdout[-2000:]}{ran.stderr[-3000:]}"
    assert len(list((tmp_path / "images").rglob("*.png"))) == 1797
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(list((tmp_path / "images" / "digit 3").iterdir()))
    for made in ("data.html", "workdirs/mine/report.html", "workdirs/mine/explain.html"):
        assert (tmp_path / made).stat().st_size > 10_000
    labels = json.loads((tmp_path / "published" / "labels.json").read_text())
    assert labels == [f"digit {i}" for i in range(10)]
    words = shlex.split(served.replace("python", sys.executable, 1))
    server = subprocess.Popen(
        [*words, "--port=0"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = next(
            match[0] for line in server.stdout if (match := re.search(r"http://[\w.:]+", line))
        )
        picture = next((tmp_path / "images" / "digit 5").iterdir()).read_bytes()
        request = urllib.request.Request(
            f"{address}/api/predict?top=3", picture, {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["probabilities"]) == 3
    finally:
        server.terminate()
        server.wait()
