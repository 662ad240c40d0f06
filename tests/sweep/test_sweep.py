"""Sweeps: what is varied and refused, which trials are run, what a kill leaves, the page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vision.config import specs
from vision.config.cli import UsageError, run_main
from vision.run.sealed import seal
from vision.run.workdir import WorkdirError
from vision.sweep import first, space
from vision.sweep import run as sweep_run
from vision.sweep.__main__ import main
from vision.sweep.run import Sweep, Worker, open_sweep
from vision.sweep.space import Choice, Range
from vision.sweep.trials import LOCK, all_trials, held, opened, read

ROOT = Path(__file__).resolve().parents[2]
QUIET: dict[str, Any] = {"say": lambda _: None, "stop": lambda: 0}


class Trained:
    """Stands in for a training: three evaluations whose values follow from the learning rate."""

    started: ClassVar[list[str]] = []
    fail: ClassVar[set[str]] = set()

    def __init__(self, workdir: Path, arguments: list[str], lock: Any, environment: Any):
        rate = next(x for x in arguments if "learning_rate" in x).partition("=")[2].split("=")[-1]
        self.started.append(workdir.name)
        self.rate, self.workdir = rate, workdir

    def wait(self, stop: Any, look: Any) -> tuple[int, bool]:
        if self.rate in self.fail:
            return 2, False
        rows = ""
        for step in (1, 2, 3):
            value = 1 / (1 + abs(float(self.rate) - 0.01)) - 0.1 / step
            row = {"step": step, "test/top1": value, "train/loss": 1 - value}
            rows += seal(row) + "\n"
            (self.workdir / "metrics.jsonl").write_text(rows)
            if look():
                return 143, True
        return 0, False

    def complaint(self) -> str:
        return "diverged"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> type[Trained]:
    monkeypatch.setattr(sweep_run, "Child", Trained)
    monkeypatch.setattr(Trained, "started", [])
    monkeypatch.setattr(Trained, "fail", set())
    return Trained


def a_sweep(folder: Path, *axes: space.Axis, **options: Any) -> Sweep:
    axes = axes or (Choice("optimizer.learning_rate", ("0.01", "1.0")),)
    sweep = Sweep(folder, "digits_vit", {}, axes, "test/top1", "max", **options)
    open_sweep(sweep)
    return sweep


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1,2", Choice("a.b", ("1", "2"))),
        ("config.a=[1,2],(3,4)", Choice("a", ("[1,2]", "(3,4)"))),
        ("a=1e-4..1e-2,log", Range("a", 1e-4, 1e-2, log=True)),
        ("a=2..8", Range("a", 2, 8, whole=True)),
        ("a=2.0..8", Range("a", 2, 8)),
    ],
)
def test_what_is_varied(text: str, expected: space.Axis):
    assert space.axis("search", text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "KEY=VALUE"),
        ("a=1,,2", "a value is empty"),
        ("a=1,1", "'1' stands twice"),
        ("a=8..2", "has to be below"),
        ("a=x..2", "two numbers"),
        ("a=0..2,log", "begins above 0"),
        ("a=1..2,3", "may only be ,log"),
    ],
)
def test_what_cannot_be_varied(text: str, message: str):
    with pytest.raises(UsageError, match=re.escape(message)):
        space.axis("search", text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid", "optimizer.learning_rte=1,2"], "did you mean 'learning_rate'?"),
        (["--grid", "lr=1e-3"], "did you mean config.optimizer.learning_rate?"),
        (["--grid", "model.depth=2,two"], "model.depth"),
        (["--grid", "seed=0,1", "--grid=seed=2"], "seed is varied twice"),
        (["--grid", "seed=0", "--config.seed=1"], "--config.seed sets what the sweep varies"),
        (["--grid", "seed=0", "--metric=tset/top1"], "did you mean 'test'?"),
        (["--grid", "seed=0", "--metric=test/top"], "test has no 'top'"),
        (["--grid", "seed=0", "--trials=3"], "belong to --search"),
        (["--grid", "seed=0", "--search", "model.depth=2..3"], "one of --grid"),
        (["--search", "model.depth=2..3"], "--trials=20"),
        (["--search", "model.depth=2..3", "--trials=2", "--sampler=tpr"], "did you mean 'tpe'?"),
        ([], "one of --grid"),
    ],
)
def test_refused_before_anything_trains(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("optuna")
    command = ["--config=digits_vit", f"--workdir={tmp_path / 's'}", *flags]
    assert run_main(main, command) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--grid", "optimizer.learning_rate=1e-3,3e-3"],
        ["--search", "model.width=48..96", "--trials=3"],
    ],
)
def test_what_every_trial_would_fail_of_is_said_once(
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trained: type[Trained],
):
    """Of the first point alone, by what a training would do up to its first step."""
    pytest.importorskip("optuna")
    asked: list[list[str]] = []

    def here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[3:])
        status = run_main(first.main, command[3:])
        return subprocess.CompletedProcess(command, status, "", capsys.readouterr().err)

    monkeypatch.setattr(first.subprocess, "run", here)
    command = ["--config=digits_vit", f"--workdir={tmp_path / 's'}", *flags]
    assert run_main(main, [*command, "--config.model.patch=3"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: the first trial would fail: ")
    assert "8x8 is not divisible by the patch 3x3" in said.err
    assert len(said.err.splitlines()) == 1
    assert len(asked) == 1
    assert flags[1].partition("=")[0] in asked[0][-1]
    # Nothing is left that would refuse the config once it is mended.
    assert not (tmp_path / "s").exists()
    assert trained.started == []


def test_a_first_trial_that_can_begin_is_asked_once(
    tmp_path: Path, trained: type[Trained], monkeypatch: pytest.MonkeyPatch
):
    asked: list[Any] = []
    monkeypatch.setattr(first, "check", lambda *arguments: asked.append(arguments))
    command = ["--config=digits_vit", f"--workdir={tmp_path}", "--grid", "seed=0,1"]
    command += ["--config.optimizer.learning_rate=0.01"]
    for _ in range(2):
        assert run_main(main, command) == 0
    assert trained.started == ["0000", "0001"]
    assert len(asked) == 1


def test_a_check_that_says_nothing_has_its_status(monkeypatch: pytest.MonkeyPatch):
    def silent(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(first.subprocess, "run", silent)
    with pytest.raises(first.FirstTrialError, match="status -9") as caught:
        first.check(["--config=digits_vit"], {})
    assert caught.value.status == 1


def test_the_metric_and_its_direction():
    config = specs.load("digits_vit")
    assert space.chosen_metric(config, None, None) == ("test/top1", "max")
    assert space.chosen_metric(config, "test/nll", None) == ("test/nll", "min")
    assert space.chosen_metric(config, "train/loss", None) == ("train/loss", "min")
    assert space.chosen_metric(config, "test/nll", "max") == ("test/nll", "max")
    kept = specs.load(
        "digits_vit", {"checkpoints.best": "test/ece", "checkpoints.best_mode": "max"}
    )
    assert space.chosen_metric(kept, None, None) == ("test/ece", "max")


def test_a_grid_ends_and_goes_on(tmp_path: Path, trained: type[Trained]):
    grid = (
        Choice("optimizer.learning_rate", ("0.01", "1.0", "2.0")),
        Choice("model.depth", ("2", "3")),
    )
    sweep = a_sweep(tmp_path, *grid)
    trained.fail = {"1.0"}
    assert not Worker(sweep, **QUIET).run(jobs=2)
    found = all_trials(tmp_path)
    assert [trial.state for trial in found] == [
        *2 * ["complete"],
        *2 * ["failed"],
        *2 * ["complete"],
    ]
    assert found[2].error == "diverged"
    assert found[1].parameters == {"optimizer.learning_rate": "0.01", "model.depth": "3"}
    # The same again: what failed is tried once more, and nothing else.
    trained.fail, trained.started = set(), []
    worker = Worker(a_sweep(tmp_path, *grid), **QUIET)
    worker.run()
    assert trained.started == ["0002", "0003"]
    assert {trial.state for trial in all_trials(tmp_path)} == {"complete"}
    page = worker.write_page().read_text()
    assert "trial 0" in page
    assert 'class="parallel across"' in page
    assert "Top-1 accuracy" in page
    assert page.index(">0<") < page.index(">4<"), "the best comes first"
    with pytest.raises(WorkdirError, match="holds another sweep"):
        a_sweep(tmp_path, Choice("optimizer.learning_rate", ("0.01",)))


def test_a_trial_that_another_works_on_is_left_to_it(tmp_path: Path, trained: type[Trained]):
    sweep = a_sweep(tmp_path)
    opened(tmp_path, 0, {"optimizer.learning_rate": "0.01"})
    lock = held(tmp_path / "0000" / LOCK, wait=False)
    assert lock is not None
    with lock:
        Worker(sweep, **QUIET).run()
    assert trained.started == ["0001"]
    assert read(tmp_path / "0000").state == "open"  # type: ignore[union-attr]
    Worker(sweep, **QUIET).run()
    assert trained.started == ["0001", "0000"]


def test_trials_that_were_damaged_or_moved_are_named(tmp_path: Path):
    trial = opened(tmp_path, 3, {"seed": "1"})
    with pytest.raises(WorkdirError, match="made for seed=1, not for seed=2"):
        opened(tmp_path, 3, {"seed": "2"})
    path = trial.folder / "trial.json"
    path.write_text(path.read_text().replace('"seed"', '"seat"'))
    with pytest.raises(WorkdirError, match=r"trial.json is damaged \(its checksum differs\)"):
        read(trial.folder)


def test_a_workdir_of_a_run_is_no_folder_for_a_sweep(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WorkdirError, match="a folder of its own"):
        a_sweep(tmp_path)


def test_a_search_that_was_killed_proposes_the_same(tmp_path: Path, trained: type[Trained]):
    pytest.importorskip("optuna")
    axes = (
        Range("optimizer.learning_rate", 1e-3, 1.0, log=True),
        Range("model.depth", 2, 4, whole=True),
        Choice("objective.label_smoothing", ("0.0", "0.1")),
    )

    def searched(folder: Path, *counts: int) -> list[Any]:
        for count in counts:
            Worker(a_sweep(folder, *axes, count=count), **QUIET).run()
        return all_trials(folder)

    whole = searched(tmp_path / "a", 13)
    parts = searched(tmp_path / "b", 4, 12)
    # Killed between its proposal and its end, and once more before Optuna was told of it.
    (tmp_path / "b" / "0011" / "trial.json").unlink()
    parts = searched(tmp_path / "b", 13)
    assert [t.parameters for t in parts] == [t.parameters for t in whole]
    assert [t.value for t in parts] == [t.value for t in whole]
    assert len({str(t.parameters) for t in whole}) == 13


def test_a_pruner_stops_bad_trials(tmp_path: Path, trained: type[Trained]):
    pytest.importorskip("optuna")
    rates = tuple(str(x) for x in (0.01, 0.011, 0.012, 0.013, 0.014, 30.0, 40.0))
    options = {"count": 12, "pruner": "median", "sampler": "random"}
    sweep = a_sweep(tmp_path, Choice("optimizer.learning_rate", rates), **options)
    Worker(sweep, **QUIET).run()
    pruned = [trial for trial in all_trials(tmp_path) if trial.state == "pruned"]
    assert pruned
    assert all(trial.number >= 5 for trial in pruned)


CONFIG = "digits_vit"
SMALL = ["total=40 steps", "optimizer.schedule.warmup=2 steps", "model.width=16", "model.depth=1"]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(tmp_path: Path):
    """Real trainings: one outlives the kill -9 of its sweep, and the same command goes on."""
    command = [sys.executable, "-m", "vision.sweep", f"--config={CONFIG}", "--workdir=s"]
    command += ["--grid", "optimizer.learning_rate=1e-3,4e-3", "--config.evaluate_every=10 steps"]
    command += [f"--config.{change}" for change in SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=tmp_path, env=environment)
    log = tmp_path / "s" / "0000" / "train.log"
    while not log.exists() or "compiling" not in log.read_text():
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    # The training that was under way is not started twice: its lock is its own.
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    last = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "2 of 2 trials" in last.stdout
    for trial in all_trials(tmp_path / "s"):
        assert trial.state == "complete"
        assert trial.value is not None
        rows = (trial.folder / "metrics.jsonl").read_text().splitlines()
        assert '"step": 40' in rows[-1]
    assert (tmp_path / "s" / "sweep.html").stat().st_size > 10_000
