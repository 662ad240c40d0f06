"""Weights that one of two processes cannot read: both say so, and nobody waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("starting_process.py")

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
def test_all_processes_fail_when_one_cannot_read():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "XLA_FLAGS": "",
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    missing = "there are no weights at /data/model.safetensors"
    assert outputs[1][0].strip() == missing
    assert outputs[0][0].strip() == f"process 1: {missing}"
