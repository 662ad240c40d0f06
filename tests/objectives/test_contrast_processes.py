"""The ring, groups and cached gradients on two processes: what one device computes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from contrast_process import CASES, batch, leaves

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_two_processes_give_the_loss_and_gradient_of_one_device(tmp_path: Path):
    path = tmp_path / "found.npz"
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
        [*launcher, "--", str(HERE / "contrast_process.py"), str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    actual = np.load(path)
    assert actual["devices"].tolist() == [2, 4, 2]
    for name in CASES:
        # One device, the whole batch at once.
        alone = jax.jit(lambda data, name=name: leaves(name, data, 1))(batch())
        assert float(alone[0]) > 0.1
        assert all(np.any(x) for x in alone[1:])
        for i, expected in enumerate(alone):
            np.testing.assert_allclose(
                *(actual[f"{name}/{i}"], expected), rtol=2e-5, atol=2e-6, err_msg=f"{name} {i}"
            )
