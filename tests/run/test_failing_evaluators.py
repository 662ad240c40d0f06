"""An evaluator that raises or kills the program costs no training."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run.kept_logger import FIGURES, Drawing, Kept
from tests.run.test_nonfinite import config
from vision.checkpoint.reading import load_state
from vision.config.specs import spec
from vision.evaluate.evaluator import EvalContext, Predict
from vision.run import clock
from vision.run.log import read_rows
from vision.run.loop import Outcome, train
from vision.train.state import digest


@dataclasses.dataclass(frozen=True)
class Failing:
    """Raises at some steps, kills the program at others; otherwise yields its step.

    Attributes:
      raises: steps.
      kills: steps, as long as the file ``armed`` is there.
      armed: a path.
    """

    raises: tuple[int, ...] = ()
    kills: tuple[int, ...] = ()
    armed: str = ""

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float]]:
        if ctx.step in self.raises:
            raise KeyError("label")
        if ctx.step in self.kills and Path(self.armed).exists():
            Path(self.armed).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        yield "step", float(ctx.step)


def with_evaluators(every: int = 4, total: int = 10, **evaluators: Any) -> Any:
    made: Any = config((), total)
    made.evaluators = evaluators
    made.evaluate_every = f"{every} steps"
    made.checkpoints.every = "1000 steps"
    return made


def run(folder: Path, **evaluators: Any) -> Outcome:
    return train(with_evaluators(**evaluators), folder)


def evaluated(folder: Path) -> list[int]:
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if "good/step" in row]


def test_one_that_raises_is_named_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    outcome = run(tmp_path / "w", bad=spec(Failing, raises=(4,)), good=spec(Failing))
    assert (outcome.step, outcome.saved) == (10, True)
    assert outcome.failed == {"bad": "KeyError: 'label'"}
    assert "evaluator bad failed at step 4: KeyError: 'label'" in caplog.text
    assert "step 4  bad failed: KeyError: 'label'" in capsys.readouterr().err
    (row,) = read_rows(tmp_path / "w" / "failed_evaluations.jsonl")
    assert row == {"step": 4, "evaluator": "bad", "error": "KeyError: 'label'"}
    assert evaluated(tmp_path / "w") == [4, 8, 10]
    # The same training as without evaluators, and a checkpoint from before the first of them.
    run(tmp_path / "alone")
    assert digest(load_state(tmp_path / "w")[1]) == digest(load_state(tmp_path / "alone")[1])
    assert load_state(tmp_path / "w", 4)[0] == 4
    # At the last step it fails for good: the same command says so again.
    assert run(tmp_path / "last", bad=spec(Failing, raises=(10,))).failed
    assert run(tmp_path / "last", bad=spec(Failing, raises=(10,))).failed
    assert len(read_rows(tmp_path / "last" / "failed_evaluations.jsonl")) == 1


@pytest.mark.slow
def test_one_that_kills_the_program_leaves_the_state_that_it_looked_at(tmp_path: Path):
    """In a child: the state of step 4 is on disk, and every row is there once in the end."""
    folder, armed = tmp_path / "w", tmp_path / "armed"
    armed.touch()
    evaluator = f"spec(Failing, kills=(4,), armed={str(armed)!r})"
    program = (
        "from pathlib import Path\n"
        "from tests.run.test_failing_evaluators import Failing, run, spec\n"
        f"run(Path({str(folder)!r}), good={evaluator})\n"
    )
    for status in (-signal.SIGKILL, 0):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == status, done.stderr[-2000:]
        if status:
            assert load_state(folder)[0] == 4
    assert "resumed from the checkpoint of step 4" in done.stderr
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert all("train/loss" in row for row in rows)
    assert evaluated(folder) == [4, 8, 10]
    run(tmp_path / "alone")
    assert digest(load_state(folder)[1]) == digest(load_state(tmp_path / "alone")[1])


def test_the_best_checkpoint_is_kept_and_loggers_get_rows_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Kept, "got", {})
    made: Any = with_evaluators(every=2, good=spec(Failing), draw=spec(Drawing))
    made.loggers = (spec(Kept),)
    made.checkpoints.every = "2 steps"
    made.checkpoints.best, made.checkpoints.best_mode = "good/step", "min"
    made.checkpoints.keep = 1
    train(made, tmp_path)
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {"2", "10"}
    ((*rows, finished),) = Kept.got.values()
    assert finished is True
    merged: dict[int, dict[str, float]] = {}
    for step, values in (row for row in rows if len(row) == 2):
        merged.setdefault(step, {}).update(values)
    assert merged == {row.pop("step"): row for row in read_rows(tmp_path / "metrics.jsonl")}
    drawn = [row for row in rows if len(row) == 3 and row[1] == "draw"]
    assert drawn == [(step, "draw", sorted(FIGURES)) for step in (2, 4, 6, 8, 10)]


def test_a_run_without_a_checkpoint_gets_one_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "FIRST_SAVE_S", 0.0)
    run(tmp_path)
    assert load_state(tmp_path, 1)[0] == 1
    assert json.loads((tmp_path / "config.json").read_text())["checkpoints"]["every"] == (
        "1000 steps"
    )
