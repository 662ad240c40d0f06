"""One device, eight, and two processes: the same numbers, and every record once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluators.evaluators_process import STRANGERS, TEST, numbers
from tests.fast_compilation import FAST_COMPILATION

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
Numbers = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def alone() -> Numbers:
    return numbers(1)


def check(found: Numbers, alone: Numbers) -> None:
    assert found.keys() == alone.keys()
    for name, expected in alone.items():
        assert found[name] == pytest.approx(expected, abs=1e-6, rel=1e-6, nan_ok=True), name


def test_every_record_is_counted_once_when_the_last_batch_is_filled_up(alone: Numbers) -> None:
    counted = {
        name: each[
            "gallery" if name == "instances" else "queries" if name == "images" else "examples"
        ]
        for name, each in alone.items()
    }
    assert set(counted.values()) == {TEST}, counted
    assert alone["ood"]["examples_far"] == STRANGERS
    assert alone["instances"]["medium_queries"] == TEST
    assert alone["few_shot"]["classes"] == 6


def test_eight_devices_say_what_one_says(alone: Numbers) -> None:
    check(numbers(8), alone)


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_two_processes_say_what_one_says(alone: Numbers, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    launcher = [
        sys.executable,
        "-m",
        "vision.programs.launch",
        "--processes",
        "2",
        "--devices",
        "2",
    ]
    done = subprocess.run(
        [*launcher, "--", str(HERE / "evaluators_process.py"), str(path)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": FAST_COMPILATION, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(path.read_text()), alone)
