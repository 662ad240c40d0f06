"""The sweep's SLURM script, run for real: an array of tasks on one folder, stopped and put back.

No cluster is at hand: ``sbatch`` and ``scontrol`` are stand-ins. The script is copied first, as
SLURM does. Each task is a process with SLURM's variables and an output file of its own; the signal
of ``--signal=B:TERM@...`` goes to the batch shell; what ``scontrol requeue`` names starts again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision.sweep.trials import all_trials

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["total=300 steps", "optimizer.schedule.warmup=2 steps", "model.width=16", "model.depth=1"]
SMALL += ["log_every=1 steps", "checkpoints.every=20 steps", "model.heads=2"]
SCONTROL = '[ "$1" = requeue ] && echo "$2" >> requeued\n'


class Array:
    """``sbatch --array=0-N script arguments``, each task a process group of its own."""

    def __init__(self, folder: Path, tasks: int, script: Path, arguments: list[str]):
        self.folder, self.arguments = folder, arguments
        text = script.read_text()
        self.script = folder / "spool" / "slurm_script"
        self.script.parent.mkdir()
        self.script.write_text(text)
        scontrol = folder / "bin" / "scontrol"
        scontrol.parent.mkdir()
        scontrol.write_text(f"#!/bin/bash\n{SCONTROL}")
        scontrol.chmod(0o755)
        options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.M))
        assert options["signal"].startswith("B:TERM@")
        assert options["open-mode"] == "append"
        assert "#SBATCH --requeue" in text
        self.output = options["output"]
        self.tasks = {task: self.start(task) for task in range(tasks)}

    def start(self, task: int, left_s: int = 60) -> subprocess.Popen[bytes]:
        environment = {k: x for k, x in os.environ.items() if k != "XLA_FLAGS"} | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "SLURM_ARRAY_JOB_ID": "9",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_JOB_END_TIME": str(int(time.time()) + left_s),
        }
        name = self.output.replace("%A", "9").replace("%a", str(task))
        with (self.folder / name).open("ab") as out:
            return subprocess.Popen(
                ["bash", str(self.script), *self.arguments],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def requeue(self) -> list[str]:
        """Starts the tasks again that asked for it; returns their names."""
        file = self.folder / "requeued"
        names = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        for name in names:
            task = int(name.partition("_")[2])
            self.tasks[task] = self.start(task, left_s=5000)
        return names

    def wait(self) -> list[int]:
        return [process.wait() for process in self.tasks.values()]

    def said(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("slurm-*.out")))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_array_shares_a_sweep_and_goes_on_after_its_time(tmp_path: Path):
    arguments = ["--config=digits_vit", "--workdir=s", "--grid", "seed=0,1,2"]
    arguments += [f"--config.{change}" for change in SMALL]
    array = Array(tmp_path, 2, ROOT / "launch" / "slurm_sweep.sh", arguments)
    try:
        metrics = [tmp_path / "s" / f"{number:04}" / "metrics.jsonl" for number in range(2)]
        while not all(file.exists() and file.read_text().count("\n") > 25 for file in metrics):
            assert any(process.poll() is None for process in array.tasks.values()), array.said()
            time.sleep(0.1)
        for process in array.tasks.values():
            process.send_signal(signal.SIGTERM)
        assert array.wait() == [143, 143], array.said()
        assert array.said().count("time is up, states are saved: back into the queue") == 2
        halted = [json.loads(file.read_text().splitlines()[-1])["step"] for file in metrics]
        assert all(25 < step < 300 for step in halted)
        assert sorted(array.requeue()) == ["9_0", "9_1"]
        assert array.wait() == [0, 0], array.said()
    finally:
        for process in array.tasks.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert not (tmp_path / "requeued").exists()
    assert "3 of 3 trials" in array.said()
    trials = all_trials(tmp_path / "s")
    assert [trial.state for trial in trials] == ["complete"] * 3
    for trial in trials:
        rows = (trial.folder / "metrics.jsonl").read_text().splitlines()
        steps = [row["step"] for row in map(json.loads, rows) if "train/loss" in row]
        assert steps == list(range(1, 301))
    for number, step in enumerate(halted):
        log = (tmp_path / "s" / f"{number:04}" / "train.log").read_text()
        assert f"resumed from the checkpoint of step {step}" in log
