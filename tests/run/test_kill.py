"""kill -9 at random and at chosen moments, then resume: the digest of the undisturbed run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fast_compilation import FAST_COMPILATION

ROOT = Path(__file__).resolve().parents[2]


def bench(*command: str) -> str:
    """The last line of a benchmark, in a process of its own: it forks, which one that has used jax
    must not."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": FAST_COMPILATION,
    }
    command = (sys.executable, "-m", *command, "--record=no")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_kills_at_random_moments():
    last = bench("bench.kill", "--kills=4", "--kills_per_run=4")
    assert re.fullmatch(r"kill met all  kills 4  runs \d+  different ends 0", last)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("moments", "count"),
    [("second save gets its name", 2), ("in the middle of a row", 1), ("set aside", 2)],
)
def test_kills_at_chosen_moments(moments: str, count: int):
    last = bench("bench.kill_placed", f"--only={moments}")
    assert last == f"moments {count}  different ends 0"
