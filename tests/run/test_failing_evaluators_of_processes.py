"""An evaluator that raises on one of two processes costs no training, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fast_compilation import FAST_COMPILATION
from tests.run import test_processes
from tests.run.test_processes import ROOT
from vision.run.log import read_rows

CONFIG = """
import dataclasses
import jax
import jax.numpy as jnp
import vision as v
from configs.digits_vit import get_config as digits
from vision.config.specs import spec
from vision.data.source import DataError
from vision.data.sources.digits import Digits
from vision.parallel import cluster

cluster._PATIENCE_OF_FAILED_S = 8


@dataclasses.dataclass(frozen=True)
class Patchy(Digits):
    # Process 1 cannot read some of the records; the other one has no trouble.
    def __getitem__(self, index):
        if jax.process_index() == 1 and index > 200:
            raise DataError(f"{self.key(index)}: cannot be read")
        return super().__getitem__(index)

    __getitems__ = None


@dataclasses.dataclass(frozen=True)
class Failing:
    where: str = ""
    data: object = None

    def run(self, predict, ctx):
        here = jax.process_index() == 1
        if self.where == "everywhere":
            raise KeyError("label")
        count = 0
        for batch in ctx.batches(self.data):
            count += 1
            if self.where == "collective" and here:
                raise KeyError("alone")
            if self.where == "collective":  # needs what the other process does not do
                float(jax.jit(lambda x: jnp.sum(x * 1.0))(batch["image"]))
        if self.where == "the end" and here:
            raise KeyError("end")
        yield "batches", float(count)


def get_config(*failing):
    config = digits()
    config.model.width, config.model.depth = 16, 1
    config.data.batch_size = 16
    config.total = "6 steps"
    config.optimizer.schedule.warmup = "0 steps"
    config.log_every = "1 steps"
    config.checkpoints.every = "2 steps"
    config.evaluate_every = "3 steps"
    data = config.evaluators["test"].data
    data.batch_size = 64
    patchy = spec(v.EvalData, source=spec(Patchy, split="test"), batch_size=64, ops=data.ops)
    config.evaluators = {
        "reading": spec(Failing, data=patchy),
        "everywhere": spec(Failing, where="everywhere", data=data),
        "end": spec(Failing, where="the end", data=data),
        "good": spec(Failing, data=data),
        "test": config.evaluators["test"],
    }
    return config


def collective() -> v.Config:
    config = get_config()
    good = config.evaluators["good"]
    config.evaluators = {"lonely": spec(Failing, where="collective", data=good.data), "good": good}
    return config
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def run(*arguments: Any) -> tuple[int, str]:
    """Once: a run that failed would do the same again."""
    command = test_processes.command(*arguments)
    command[command.index("--restarts") + 1] = "0"
    environment = {**os.environ, "XLA_FLAGS": FAST_COMPILATION, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def trained(tmp_path: Path, function: str, processes: int = 2) -> tuple[int, str, Path]:
    file, workdir = tmp_path / "config.py", tmp_path / f"w{processes}"
    file.write_text(CONFIG)
    arguments = (f"--config={file}:{function}", f"--workdir={workdir}")
    status, errors = run("train.py", processes, 1, *arguments)
    return status, errors, workdir


def test_one_that_raises_on_one_process_has_failed_on_all_and_the_run_goes_on(tmp_path: Path):
    status, errors, workdir = trained(tmp_path, "get_config")
    assert status == 1, errors
    assert "step 3  reading failed: process 1: " in errors
    assert "cannot be read" in errors
    assert "step 3  everywhere failed: KeyError: 'label'\n" in errors
    assert "step 3  end failed: process 1: KeyError: 'end'\n" in errors
    failed = [(r["step"], r["evaluator"]) for r in read_rows(workdir / "failed_evaluations.jsonl")]
    assert failed == [(s, name) for s in (3, 6) for name in ("end", "everywhere", "reading")]
    assert not list(workdir.glob("failed_evaluations-*"))
    rows = read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert [row["step"] for row in rows if row.get("good/batches") == 6] == [3, 6]
    # The same as where one process trains, to which records of every evaluator are there.
    one_status, one_errors, alone = trained(tmp_path, "get_config", processes=1)
    assert one_status == 1, one_errors
    assert "reading failed" not in one_errors
    others = read_rows(alone / "metrics.jsonl")
    for name in ("train/loss", "test/nll"):
        found = [[row[name] for row in each if name in row] for each in (rows, others)]
        assert len(found[0]) == (6 if name == "train/loss" else 2)
        assert found[0] == pytest.approx(found[1], rel=1e-4)
    # evaluate.py goes on in the same way.
    status, errors = run("evaluate.py", 2, 1, f"--workdir={workdir}", f"--out={tmp_path}/out")
    assert status == 1, errors
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())["evaluators"]
    assert results["good"]["metrics"] == {"batches": 6.0}
    assert results["reading"]["error"].startswith("process 1: ")
    assert results["everywhere"]["error"] == "KeyError: 'label'"
    assert results["end"]["error"] == "process 1: KeyError: 'end'"


def test_one_that_leaves_another_waiting_for_its_devices_stops_the_run_in_one_line(tmp_path: Path):
    status, errors, workdir = trained(tmp_path, "collective")
    assert status != 0
    lines = [line for line in errors.splitlines() if "KeyError: 'alone'; the others wait" in line]
    assert len(lines) == 1, errors
    assert lines[0].startswith("[1] error: process 1: ")
    assert len(read_rows(workdir / "metrics.jsonl")) == 3
