"""Checkpoints of several processes: one folder, one decision, any number of processes after."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.checkpoint.checkpoint_process import restore, value
from tests.fast_compilation import with_devices
from vision.checkpoint.reading import load_state
from vision.parallel.mesh import Mesh
from vision.train.state import digest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("checkpoint_process.py")

pytestmark = pytest.mark.timeout(240)


def run(command: str, *workdirs: Path, fsdp: int) -> list[tuple[str, str]]:
    """Output and errors of both of 2 processes x 2 devices."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": with_devices(2),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, command, workdir, str(fsdp), address, "2", str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, workdir in enumerate(workdirs)
    ]
    try:
        outputs = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return outputs


@pytest.mark.slow
def test_saved_by_two_processes_restored_by_any_number(tmp_path: Path):
    workdir, view = tmp_path / "run", tmp_path / "view"
    run("save", workdir, workdir, fsdp=4)
    step, state = load_state(workdir)
    assert digest(state) == digest({name: value(name, 4) for name in state})
    # Both wrote their part.
    assert step == 4
    assert (workdir / "checkpoints" / "4" / "state" / "ocdbt.process_1").is_dir()
    for count in (1, 4):
        mesh = Mesh(data=1, fsdp=count).build(jax.devices()[:count])
        assert restore(workdir, mesh) == "4 of [3, 4]"

    # The second process cannot read the newest, as if its view of the shared folder were broken.
    # Both take the older one; process 0 moves the newest away and says why.
    shutil.copytree(workdir, view)
    shutil.rmtree(view / "checkpoints" / "4" / "state" / "d")
    (workdir / "checkpoints" / "7").mkdir()
    first, second = run("restore", workdir, view, fsdp=2)
    assert first[0].splitlines()[-1] == "3 of [3]"
    assert second[0].splitlines()[-1] == "3 of [3, 4]"
    assert sorted(path.name for path in (workdir / "quarantine").iterdir()) == ["4-0", "7-0"]
    assert "checkpoints/4 is not usable: unreadable for another process" in first[1]
    assert not (view / "quarantine").exists()


@pytest.mark.slow
def test_two_processes_restore_a_step_whose_save_is_under_way(tmp_path: Path):
    outputs = run("race", tmp_path, tmp_path, fsdp=4)
    assert [output.splitlines()[-1] for output, _ in outputs] == ["2", "2"]
