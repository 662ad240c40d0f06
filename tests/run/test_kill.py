"""Four times kill -9 at random moments, then resume: the digest of the undisturbed run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fast_compilation import FAST_COMPILATION

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_kills_at_random_moments():
    # A process of its own: it forks, which one that has used jax must not.
    command = [sys.executable, "-m", "bench.kill", "--kills=4", "--kills_per_run=4", "--record=no"]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": FAST_COMPILATION,
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"kill met all  kills 4  runs \d+  different ends 0", last), done.stdout
