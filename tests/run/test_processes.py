"""Real runs of train.py and evaluate.py on several processes, continued by another number."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fast_compilation import FAST_COMPILATION
from vision.config.specs import load
from vision.run.log import read_rows
from vision.run.loop import train

ROOT = Path(__file__).resolve().parents[2]
TOTAL = 80
CONFIG = f"""
from configs.digits_vit import get_config as digits
from tests.patch_tower import PatchTower
from vision.config.specs import spec
from vision.parallel.mesh import ShardingRule


def get_config():
    config = digits()
    config.model = spec(PatchTower)
    config.data.batch_size = 16
    config.total = "{TOTAL} steps"
    config.optimizer.schedule.warmup = "0 steps"
    config.log_every = "1 steps"
    config.checkpoints.every = "10 steps"
    config.evaluators.test.data.batch_size = 64
    config.evaluate_every = "40 steps"
    config.mesh.fsdp = 2 if MORE else 1
    config.sharding = [spec(ShardingRule, pattern="kernel$", layout="fsdp", min_size=1)]
    return config
"""
pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A config for one device, and the same with its parameters split between two."""
    folder = tmp_path_factory.mktemp("configs")
    paths = {}
    for fsdp in (1, 2):
        paths[fsdp] = folder / f"fsdp{fsdp}.py"
        paths[fsdp].write_text(CONFIG.replace("MORE", str(fsdp > 1)))
    return paths


def command(program: str, processes: int, devices: int, *arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "vision.programs.launch", "--restarts", "1"]
    numbers = ["--processes", str(processes), "--devices", str(devices)]
    return [*launcher, *numbers, "--", str(ROOT / program), *arguments]


def start(*arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": FAST_COMPILATION, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: Any) -> tuple[int, str]:
    with start(*arguments) as process:
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors


def losses(workdir: Path) -> list[float]:
    found = read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [row["train/loss"] for row in found]


@pytest.fixture(scope="module")
def alone(configs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, this one, that nothing happened to."""
    workdir = tmp_path_factory.mktemp("alone")
    train(load(str(configs[1])), workdir)
    assert len(losses(workdir)) == TOTAL
    return workdir


def stop_after(rows: int, workdir: Path, *arguments: Any) -> str:
    """Runs until ``rows`` updates are logged, then sends SIGTERM; returns what was printed."""
    with start(*arguments) as process:
        end = time.monotonic() + 120
        while len(read_rows(workdir / "metrics.jsonl")) < rows:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 143, errors
    return errors


@pytest.mark.slow
def test_two_processes_stopped_and_continued_by_one(
    configs: dict[int, Path], alone: Path, tmp_path: Path
):
    """Saved by 2 processes x 2 devices, resumed by 1 x 4 and then by 1 x 1: the same run."""
    workdir = tmp_path / "run"
    split = (f"--config={configs[2]}", f"--workdir={workdir}")
    errors = stop_after(10, workdir, "train.py", 2, 2, *split)
    assert "4 cpu device(s)" in errors
    first = len(losses(workdir))
    errors = stop_after(first + 10, workdir, "train.py", 1, 4, *split)
    assert f"resumed from the checkpoint of step {first}" in errors
    second = len(losses(workdir))
    whole = (f"--config={configs[1]}", f"--workdir={workdir}", "--accept_config_change")
    status, errors = run("train.py", 1, 1, *whole)
    assert status == 0, errors
    assert f"resumed from the checkpoint of step {second}" in errors
    assert first < second < TOTAL
    assert losses(workdir) == pytest.approx(losses(alone), rel=1e-4)


@pytest.mark.slow
def test_evaluation_counts_every_example_once(alone: Path, tmp_path: Path):
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"by{processes}"
        arguments = (f"--workdir={alone}", f"--out={out}", "--allow_modules=tests")
        status, errors = run("evaluate.py", processes, 1, *arguments)
        assert status == 0, errors
        evaluation = json.loads((out / "evaluation.json").read_text())
        found[processes] = evaluation["evaluators"]["test"]["metrics"]
    assert found[2] == pytest.approx(found[1], rel=1e-5)
    assert found[2]["examples"] == 359


@pytest.mark.slow
def test_one_of_two_processes_killed_and_the_set_starts_again(
    configs: dict[int, Path], alone: Path, tmp_path: Path
):
    arguments = (f"--config={configs[1]}", f"--workdir={tmp_path}")
    with start("train.py", 2, 1, *arguments) as launcher:
        while len(read_rows(tmp_path / "metrics.jsonl")) < 20:
            assert launcher.poll() is None, launcher.communicate()[1]
            time.sleep(0.05)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        second = next(
            int(pid)
            for pid in children
            if b"JAX_PROCESS_ID=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        )
        os.kill(second, signal.SIGKILL)
        _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, errors
    assert re.search(r"process 1 .*SIGKILL", errors)
    assert "resumed from the checkpoint of step" in errors
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-4)
    last = read_rows(tmp_path / "metrics.jsonl")[-1]
    assert last["seconds/lost"] >= 0
    assert 0 < last["goodput"] < 1


@pytest.mark.slow
def test_a_mistake_in_the_config_ends_all_processes_at_once(
    configs: dict[int, Path], tmp_path: Path
):
    arguments = (f"--config={configs[1]}", f"--workdir={tmp_path}", "--config.model.widht=3")
    status, errors = run("train.py", 2, 1, *arguments)
    assert status == 2
    assert "widht" in errors
    (tmp_path / "file").write_text("")
    arguments = (f"--config={configs[1]}", f"--workdir={tmp_path}/file")
    status, errors = run("train.py", 2, 1, *arguments)
    assert status == 2
    assert "cannot be written" in errors
