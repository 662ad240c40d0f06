"""Early stopping: when a run ends, the same after a crash at any point, and its best checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run.test_nonfinite import config
from vision.checkpoint.evaluations import StepEvaluation, read_evaluations
from vision.checkpoint.manifest import CheckpointError
from vision.checkpoint.reading import folder_of, load_state
from vision.checkpoint.retention import named_step
from vision.config.schema import ConfigError
from vision.config.specs import spec
from vision.evaluate.evaluator import EvalContext, Predict
from vision.run import experiment
from vision.run.cursor import RunCursor
from vision.run.log import read_rows
from vision.run.loop import Outcome, train
from vision.run.stopping import EarlyStop, counted, stalled
from vision.train.state import digest

# Best at 6; 8, 10 and 12 are not better, so that a patience of 3 ends the run at 12.
VALUES = {2: 0.2, 4: 0.1, 6: 0.5, 8: 0.5, 10: math.nan, 12: 0.4, 14: 0.9}


class Crash(BaseException):
    """What no run catches."""


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Yields a number by step; crashes once at a step.

    Attributes:
      crash_at: the step, as long as the file is there.
      armed: a path.
    """

    crash_at: int = 0
    armed: str = ""

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float]]:
        if ctx.step == self.crash_at and Path(self.armed).exists():
            Path(self.armed).unlink()
            raise Crash
        yield "score", VALUES[ctx.step]


@dataclasses.dataclass(frozen=True)
class Last:
    """Runs at the end only."""

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float]]:
        yield "step", float(ctx.step)


def stopping(save_every: int, **scripted: Any) -> Any:
    made: Any = config((), 14)
    made.evaluators = {"val": spec(Scripted, **scripted), "last": spec(Last)}
    made.evaluate_every = None  # of another type
    made.evaluate_every = {"val": "2 steps"}
    made.early_stop = spec(EarlyStop, metric="val/score", patience=3)
    made.checkpoints.every = f"{save_every} steps"
    made.checkpoints.best = "val/score"
    experiment.check(made)
    return made


def evaluated(folder: Path, name: str) -> list[int]:
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if name in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    armed = str(folder.parent / "armed")
    return folder, train(stopping(2, crash_at=3, armed=armed), folder)


def test_it_ends_when_nothing_gets_better(whole: tuple[Path, Outcome], capsys: Any):
    folder, outcome = whole
    assert (outcome.step, outcome.signal, outcome.saved) == (12, None, True)
    assert evaluated(folder, "val/score") == [2, 4, 6, 8, 10, 12]
    assert evaluated(folder, "last/step") == [12]  # what runs at the end does
    assert named_step(folder, "best") == 8  # of equal ones the newest
    armed = str(folder.parent / "armed")
    again = train(stopping(2, crash_at=3, armed=armed), folder)  # the same command again
    assert (again.step, evaluated(folder, "last/step")) == (12, [12])
    said = capsys.readouterr().err
    assert "stopped early: val/score has not been better than 0.5 of step 6 in 3" in said
    assert "already trained to step 12: nothing to do" in said


@pytest.mark.slow
@pytest.mark.parametrize("crash_at", [8, 12])
@pytest.mark.parametrize("save_every", [2, 5])
def test_after_a_crash_it_ends_at_the_same_step(
    crash_at: int, save_every: int, whole: tuple[Path, Outcome], tmp_path: Path
):
    """Saved before the evaluation that crashed, or some steps earlier."""
    armed = tmp_path / "armed"
    armed.touch()
    made = stopping(save_every, crash_at=crash_at, armed=str(armed))
    with pytest.raises(Crash):
        train(made, tmp_path / "w")
    outcome = train(made, tmp_path / "w")
    assert outcome.step == 12
    assert evaluated(tmp_path / "w", "val/score") == [2, 4, 6, 8, 10, 12]
    assert digest(load_state(tmp_path / "w")[1]) == digest(load_state(whole[0])[1])
    stored = {step: dict(row.metrics) for step, row in read_evaluations(
        folder_of(tmp_path / "w")).items()}  # fmt: skip
    assert stored[12] == {"val/score": 0.4, "last/step": 12.0}
    assert stored[10] == {}  # it was NaN


def through(policy: EarlyStop, values: list[Any]) -> list[bool]:
    cursor, ended = RunCursor(), []
    for step, value in enumerate(values, 1):
        metrics = {} if value is None else {"val/x": value}
        failed = {"val": "broken"} if value == "failed" else {}
        result = StepEvaluation({} if failed else metrics, failed, () if failed else ("val",))
        cursor = counted(policy, dataclasses.replace(cursor, step=step), result)
        ended.append(bool(stalled(policy, cursor)))
    return ended


def test_what_counts_as_better():
    policy = EarlyStop("val/x", patience=2)
    assert through(policy, [1, 2, 2, 2]) == [False, False, False, True]
    assert through(policy, [1, 0, 2, 0, 1]) == [False, False, False, False, True]
    assert through(policy, [None, None]) == [False, True]  # never finite
    assert through(policy, [1, 0, "failed", "failed", 0]) == [False, False, False, False, True]
    small = EarlyStop("val/x", patience=1, mode="min", min_delta=0.5)
    assert through(small, [3, 2.6]) == [False, True]
    assert through(small, [3, 2.4, 1.8]) == [False, False, False]
    other = StepEvaluation({"test/x": 1.0}, {}, ("test",))
    cursor = RunCursor(step=1, evaluations_since_best=1)
    assert counted(policy, cursor, other) == cursor
    assert counted(None, cursor, other) == cursor
    due = dataclasses.replace(cursor, unevaluated=True)
    assert counted(None, due, other) == cursor
    assert RunCursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "vall/score"}, "did you mean 'val'"),
        ({"metric": "val"}, "a slash and one of its metrics"),
        ({"metric": "last/step"}, "last runs at the end only"),
    ],
)
def test_a_metric_that_is_not_measured(change: dict[str, str], said: str):
    made = stopping(2)
    made.early_stop.update(change)
    with pytest.raises(ConfigError, match=said):
        experiment.check(made)


def test_a_metric_that_the_evaluator_does_not_yield(tmp_path: Path):
    made = stopping(2)
    made.early_stop.metric = "val/scor"
    with pytest.raises(ConfigError, match=r"val does not yield.*did you mean 'val/score'"):
        train(made, tmp_path / "w")


def test_named_steps(whole: tuple[Path, Outcome]):
    folder = whole[0]
    assert named_step(folder, None) is None
    assert named_step(folder, "") is None
    assert named_step(folder, "7") == named_step(folder, 7) == 7
    assert named_step(folder, "best:last/step") == 12
    for text, said in (
        ("last", "neither a number nor best"),
        ("-1", "neither"),
        ("best:val/x", "no checkpoint in"),
        (True, "needs a value"),
    ):
        with pytest.raises(CheckpointError, match=said):
            named_step(folder, text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        named_step(folder / "gone", "best")
