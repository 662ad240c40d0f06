"""Stages: checked as a whole, gone through in order, passed over once they are finished."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.patch_tower import PatchTower
from vision.checkpoint.reading import load_state
from vision.config.schema import ConfigError
from vision.config.specs import build, override, spec
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import TrainData
from vision.data.samplers import WeightedSampler
from vision.data.sources.digits import Digits
from vision.objectives.classify import Classify
from vision.run import experiment
from vision.run.experiment import Experiment
from vision.run.restore import load_run
from vision.run.workdir import WorkdirError
from vision.scenario import stages
from vision.scenario.stages import Scenario, Stage
from vision.train.optim import Optimizer, adamw
from vision.train.state import digest
from vision.weights.init_from import InitFrom


@dataclasses.dataclass(frozen=True)
class Confident:
    """Weights of records: those that a run is sure of count more. It counts its calls."""

    run_of: str
    calls: str
    fail: bool = False

    def run(self, folder: Path) -> dict[str, float]:
        with Path(self.calls).open("a") as file:
            file.write("x")
        trained = load_run(Path(self.run_of))
        data = Digits(split="train")
        image = (
            np.stack([data[i]["image"] for i in range(len(data))]).astype(np.float32) / 127.5 - 1
        )
        batch = {"image": image, "_mask": np.ones(len(data), bool)}
        sure = np.exp(trained.predict(trained.variables, batch)["log_probabilities"]).max(-1)
        np.save(folder / "weights.npy", np.asarray(sure, np.float64))
        if self.fail:
            raise RuntimeError("broken off")
        return {"mean": float(sure.mean())}


def run_of(total: str, **data: Any) -> Any:
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Digits, split="train"),
            batch_size=16,
            batch_ops=[spec(BatchValueRange, low=-1, high=1)],
            threads=0,
            **data,
        ),
        model=spec(PatchTower, width=16),
        objective=spec(Classify),
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=1e-3),
        total=total,
        log_every="1 steps",
    )


def scenario(calls: Path, fail: bool = False) -> Any:
    second = run_of("6 steps", sampler=spec(WeightedSampler, weights="stage:confident/weights.npy"))
    second.init_from = spec(InitFrom, source="workdir:stage:first")
    job = spec(Confident, run_of="stage:first", calls=str(calls), fail=fail)
    return spec(
        Scenario,
        stages=[
            spec(Stage, name="first", do=run_of("4 steps")),
            spec(Stage, name="confident", do=job),
            spec(Stage, name="second", do=second),
        ],
    )


def go(config: Any, workdir: Path) -> Any:
    stages.check(config)
    return stages.train(config, workdir, progress_s=math.inf)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stages")
    outcome = go(scenario(folder / "calls"), folder / "w")
    assert outcome.step == 10
    assert outcome.saved
    assert {"first/train/loss", "confident/mean", "second/train/loss"} <= set(outcome.metrics)
    return folder / "w", folder / "calls"


def state_digest(workdir: Path) -> str:
    return digest(load_state(workdir)[1])


def test_the_second_run_begins_with_the_first_ones_weights_and_the_jobs_file(
    undisturbed: tuple[Path, Path],
):
    workdir, _ = undisturbed
    rows = json.loads((workdir / stages.CURSOR).read_text())["finished"]
    assert [(row["name"], row["step"]) for row in rows] == [
        ("first", 4),
        ("confident", 0),
        ("second", 6),
    ]
    written = json.loads((workdir / "second" / "config.json").read_text())
    assert written["init_from"]["source"] == f"workdir:{workdir}/first"
    assert written["data"]["sampler"]["weights"] == f"{workdir}/confident/weights.npy"
    assert [path.name for path in stages.run_folders(workdir)] == ["first", "second"]


def test_finished_stages_are_passed_over(undisturbed: tuple[Path, Path]):
    workdir, calls = undisturbed
    before = (calls.read_text(), state_digest(workdir / "second"))
    assert go(scenario(calls), workdir).step == 10
    assert (calls.read_text(), state_digest(workdir / "second")) == before


@pytest.mark.slow
def test_a_scenario_that_was_broken_off_ends_as_the_undisturbed_one(
    undisturbed: tuple[Path, Path], tmp_path: Path
):
    """In the middle of a job, and in the middle of a run."""
    with pytest.raises(RuntimeError, match="broken off"):
        go(scenario(tmp_path / "calls", fail=True), tmp_path / "w")
    assert not (tmp_path / "w" / "confident").exists()
    half = scenario(tmp_path / "calls")
    half.stages[2].do.total = "3 steps"
    stages.train(half, tmp_path / "w", accept_config_change=True, progress_s=math.inf)
    cursor = tmp_path / "w" / stages.CURSOR
    rows = json.loads(cursor.read_text())["finished"]
    cursor.write_text(json.dumps({"finished": rows[:2]}))
    outcome = stages.train(
        scenario(tmp_path / "calls"), tmp_path / "w", accept_config_change=True, progress_s=math.inf
    )
    assert outcome.step == 10
    assert (tmp_path / "calls").read_text() == "xx"  # once broken off, once to its end
    for name in ("first", "second"):
        assert state_digest(tmp_path / "w" / name) == state_digest(undisturbed[0] / name)
    whole = cursor.read_text()
    for damaged in (
        "{",
        whole.replace("finished", "finishfd"),
        whole.replace('"step": 4', '"step": 2', 1),
    ):
        assert damaged != whole
        cursor.write_text(damaged)
        with pytest.raises(WorkdirError, match=r"stages\.json cannot be read"):
            go(scenario(tmp_path / "calls"), tmp_path / "w")


def test_a_changed_config_names_the_finished_stages_that_it_keeps(
    undisturbed: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed[0], workdir)
    changed = scenario(undisturbed[1])
    override(changed, "stages[0].do.optimizer.learning_rate", "0.5")
    before = state_digest(workdir / "first")
    for _ in range(2):  # also when the new config is that of the folder
        caplog.clear()
        outcome = stages.train(changed, workdir, accept_config_change=True, progress_s=math.inf)
        assert outcome.step == 10
        assert "stage first is kept as another config made it (do.optimizer.learning_rate: " in (
            caplog.text
        )
        assert "stage second" not in caplog.text
    assert state_digest(workdir / "first") == before


def test_new_names_and_new_defaults_do_not_change_a_finished_stage(tmp_path: Path):
    do = scenario(tmp_path / "calls").stages[2].do
    row = json.loads(json.dumps({"do": stages._written(do)}))
    assert stages._changed(row, do) == ""
    assert "log_every" in row["do"]
    assert "checkpoints" not in row["do"]  # all at their defaults, and one that comes later too
    # As an earlier version wrote it: an old path, and a parameter's old name.
    written = json.dumps(row)
    for now, old in (
        ("vision.run.experiment.Experiment", "vision.core.experiment.Experiment"),
        ("WeightedSampler", "Weighted"),
    ):
        assert now in written
        written = written.replace(now, old)
    assert stages._changed(json.loads(written), do) == ""
    override(do, "seed", "3")
    assert stages._changed(row, do) == 'do.seed: "absent" -> 3'
    assert stages._changed({"config": "0123"}, do).startswith("or its constructors have new names")
    assert stages._changed({}, do) == ""  # older still: nothing is known


def test_metrics_of_a_run_that_was_finished_before_its_row_are_kept(
    undisturbed: tuple[Path, Path], tmp_path: Path
):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed[0], workdir)
    rows = json.loads((workdir / stages.CURSOR).read_text())["finished"]
    (workdir / stages.CURSOR).write_text(json.dumps({"finished": rows[:0]}))
    first = scenario(undisturbed[1])
    first.stages = first.stages[:1]
    stages.train(first, workdir, accept_config_change=True, progress_s=math.inf)
    (row,) = json.loads((workdir / stages.CURSOR).read_text())["finished"]
    assert row["metrics"]["train/loss"] == rows[0]["metrics"]["train/loss"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"stages[1].name": "first"}, "'first' stands twice"),
        ({"stages[1].name": "a/b"}, "not a name for a folder"),
        ({"stages[1].do.run_of": "stage:frist"}, "not a stage before it; did you mean 'first'"),
        ({"stages[0].do.objective.label_smoothing": "x"}, "expected a number"),
        ({"stages[0].do.modle": "x"}, "did you mean 'model'"),
        (
            {"stages[2].do.accumulate": "0"},
            r"stages\[2\]\.do\.accumulate=0: expected a whole",
        ),
    ],
)
def test_a_wrong_scenario_is_refused_before_anything_is_computed(
    damage: dict[str, str], words: str, tmp_path: Path
):
    config = scenario(tmp_path / "calls")

    def checked() -> None:
        for key, text in damage.items():
            override(config, key, text)
        stages.check(config)

    with pytest.raises(ConfigError, match=words):
        checked()


def test_what_takes_one_run_says_so(undisturbed: tuple[Path, Path]):
    with pytest.raises(ConfigError, match="an Experiment"):
        experiment.check(scenario(undisturbed[1]))
    with pytest.raises(ConfigError, match="an Experiment"):
        load_run(undisturbed[0])


def test_an_experiment_is_gone_through_as_such(tmp_path: Path):
    config = run_of("2 steps")
    assert list(stages.runs(config)) == [""]
    assert go(config, tmp_path / "w").step == 2
    assert not (tmp_path / "w" / stages.CURSOR).exists()
    assert stages.run_folders(tmp_path / "w") == []
    assert build(config.total) == "2 steps"
