"""Loggers: what they get, once also after a kill, and what happens where one is not there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run.kept_logger import FIGURES, Drawing, Kept
from tests.run.test_failing_evaluators import with_evaluators
from vision.config.schema import ConfigError
from vision.config.specs import spec
from vision.programs.evaluate import main as evaluate
from vision.run import loggers as loggers_module
from vision.run.loggers import LOGGERS, LoggerError, Loggers, need, send_evaluation, tables
from vision.run.loop import train
from vision.run.mlflow_logger import MLflow, flat
from vision.run.wandb_logger import Wandb
from vision.run.workdir import open_workdir


@pytest.fixture
def got(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    monkeypatch.setattr(Kept, "got", {})
    return Kept.got


def send(
    folder: Path, steps: range, *, begin: int, config: str = "a", finished: bool = True
) -> None:
    loggers = Loggers((Kept(),), folder, {"config": config})
    loggers.begin(begin)
    for step in steps:
        loggers.metrics(step, {"train/loss": float(step)})
        if step % 2 == 0:
            loggers.metrics(step, {"test/top1": 0.5})
    loggers.finished = finished
    loggers.close()


def test_steps_that_are_made_again_are_sent_once(tmp_path: Path, got: dict[str, list[Any]]):
    send(tmp_path, range(1, 8), begin=0, finished=False)
    send(tmp_path, range(5, 10), begin=4)
    (rows,) = got.values()
    losses = [row[0] for row in rows if isinstance(row, tuple) and "train/loss" in row[1]]
    assert losses == list(range(1, 10))
    assert [row for row in rows if isinstance(row, bool)] == [False, True]
    # With another config the steps are other ones.
    send(tmp_path, range(8, 11), begin=7, config="b")
    losses = [row[0] for row in rows if isinstance(row, tuple) and "train/loss" in row[1]]
    assert losses == [*range(1, 10), 8, 9, 10]


def test_an_evaluation_goes_to_the_run_of_the_training(
    tmp_path: Path, got: dict[str, list[Any]], caplog: pytest.LogCaptureFixture
):
    send(tmp_path, range(1, 4), begin=0, finished=False)
    results = {"test": ({"top1": 0.5}, FIGURES)}
    for step in (3, 2, 2):  # also of earlier checkpoints, and again
        send_evaluation((Kept(),), tmp_path, {}, step, results)
    (rows,) = got.values()
    sent = [(2, {"evaluation/test/top1": 0.5}), (2, "evaluation/test", sorted(FIGURES)), False]
    assert rows[-3:] == rows[-6:-3] == sent
    # The training goes on with the same run, and knows what it had sent.
    send(tmp_path, range(3, 6), begin=2)
    assert [row[0] for row in rows if isinstance(row, tuple) and "train/loss" in row[1]] == [
        *range(1, 6)
    ]
    send_evaluation((Kept(),), tmp_path, {}, 5, results)
    assert rows[-1] is True
    with caplog.at_level(logging.ERROR):
        send_evaluation((Kept(fails_at=5), Kept()), tmp_path, {}, 5, results)
    assert [each.getMessage() for each in caplog.records] == [
        "not sent to logger Kept: no route to host"
    ]
    assert len(got) == 2  # the second logger is new, and is sent what the first refused
    assert got["run1"][0] == (5, {"evaluation/test/top1": 0.5})


def test_evaluate_sends_what_it_measured(
    tmp_path: Path, got: dict[str, list[Any]], caplog: pytest.LogCaptureFixture
):
    config = with_evaluators(draw=spec(Drawing))
    config.loggers = (spec(Kept),)
    assert train(config, tmp_path).saved
    (rows,) = got.values()
    before = len(rows)
    command = [f"--workdir={tmp_path}", "--allow_modules=tests"]
    assert evaluate([*command, "--no_loggers"]) == 0
    assert len(rows) == before
    assert evaluate(command) == 0
    assert rows[before:] == [
        (10, {"evaluation/draw/step": 10.0}),
        (10, "evaluation/draw", sorted(FIGURES)),
        True,
    ]
    with open_workdir(tmp_path, config), caplog.at_level(logging.WARNING):
        assert evaluate(command) == 0
    assert "is being trained, and its loggers are in use" in caplog.text
    assert len(rows) == before + 3


def test_a_run_that_goes_back_sends_its_new_way(tmp_path: Path, got: dict[str, list[Any]]):
    loggers = Loggers((Kept(),), tmp_path, {})
    loggers.begin(0)
    for step in (1, 2, 3):
        loggers.metrics(step, {"loss": 1.0})
    loggers.begin(1)
    loggers.metrics(2, {"loss": 2.0})
    loggers.close()
    (rows,) = got.values()
    assert rows[-2] == (2, {"loss": 2.0})


def test_a_logger_that_fails_is_named_once(
    tmp_path: Path, got: dict[str, list[Any]], caplog: pytest.LogCaptureFixture
):
    loggers = Loggers((Kept(fails_at=2), Kept()), tmp_path, {})
    with caplog.at_level(logging.ERROR):
        for step in (1, 2, 3):
            loggers.metrics(step, {"loss": 1.0})
        loggers.close()
    assert [len(rows) for rows in got.values()] == [1, 4]
    said = "logger Kept: ConnectionError: no route to host; nothing more goes there"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_missing_package_is_one_line_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loggers_module, "find_spec", lambda name: None)
    for logger, package in (
        (spec(Wandb, project="p"), "wandb"),
        (spec(MLflow, experiment="e"), "mlflow"),
    ):
        config = with_evaluators(draw=spec(Drawing))
        config.loggers = (logger,)
        with pytest.raises(ConfigError, match=rf"needs {package}, .*pip install '{package}"):
            train(config, tmp_path / package)
        assert not (tmp_path / package / "metrics.jsonl").exists()


def test_packages_that_are_there_are_enough():
    need("json", "x")


def test_a_damaged_memory_is_named(tmp_path: Path, got: dict[str, list[Any]]):
    send(tmp_path, range(1, 2), begin=0)
    path = tmp_path / LOGGERS
    path.write_text(path.read_text().replace("run0", "run1"))
    with pytest.raises(LoggerError, match="its checksum differs"):
        send(tmp_path, range(1, 2), begin=0)


def test_figures_as_tables():
    found = tables(FIGURES)
    assert sorted(found) == ["bins", "by_group", "confusion", "curve"]
    assert found["confusion"].rows == (("cat", "cat", 4), ("cat", "dog", 1), ("dog", "dog", 2))
    assert found["curve"].rows == (("all", 0.0, 0.0), ("all", 1.0, 1.0))
    assert found["bins"].rows == ((0.0, 1.0, 1.0, 1.0, 3),)


def test_parameters_of_a_config():
    config = {"seed": 1, "ops": [{"_constructor": "x.Crop", "size": [1, 2]}], "ema": None, "t": "5"}
    assert flat(config) == {
        "seed": "1",
        "ops.0._constructor": "x.Crop",
        "ops.0.size": "[1, 2]",
        "ema": "null",
        "t": "5",
    }


def records(file: Path) -> Iterator[bytes]:
    """Of a file of W&B: LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    data, place, part = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def sent_offline(workdir: Path) -> tuple[set[tuple[str, str, str]], list[tuple[int, set[str]]]]:
    """Runs (id, project, group) and rows (step, names) in the files of an offline W&B."""
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    history: list[tuple[int, set[str]]] = []
    names = set()
    for file in sorted((workdir / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                names.add((record.run.run_id, record.run.project, record.run.run_group))
            if record.HasField("history"):
                row = {
                    item.key or item.nested_key[0]: item.value_json for item in record.history.item
                }
                history.append((int(row["step"]), set(row)))
    return names, history


def test_wandb_goes_on_with_its_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in (range(1, 4), range(2, 6)):
        loggers = Loggers((Wandb(project="p", group="g"),), tmp_path, {"model": {"width": 3}})
        loggers.begin(steps[0] - 1)
        for step in steps:
            loggers.metrics(step, {"train/loss": 1 / step})
        loggers.figures(steps[-1], "test", FIGURES)
        loggers.close()
    measured = {"test": ({"top1": 0.5}, FIGURES)}
    send_evaluation((Wandb(project="p", group="g"),), tmp_path, {}, 4, measured)
    end = time.monotonic() + 30
    # Its service goes on writing for a moment after the session has ended.
    while not any("evaluation/test/mistakes" in row for _, row in sent_offline(tmp_path)[1]):
        assert time.monotonic() < end
        time.sleep(0.2)
    names, history = sent_offline(tmp_path)
    assert len(names) == 1
    assert [step for step, row in history if "train/loss" in row] == [1, 2, 3, 4, 5]
    assert [step for step, row in history if "evaluation/test/top1" in row] == [4]
    assert [step for step, row in history if "evaluation/test/mistakes" in row] == [4]
    drawn = [row for _, row in history if "test/mistakes" in row]
    assert len(drawn) == 2
    assert drawn[0] >= {"test/mistakes", "test/confusion", "test/by_group", "test/curve"}
    assert list((tmp_path / "wandb").rglob("*.png"))
    assert list((tmp_path / "wandb").rglob("*.table.json"))


def test_mlflow_goes_on_with_its_run_in_a_local_store(tmp_path: Path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    store = f"sqlite:///{tmp_path}/mlflow.db"
    logger = MLflow("digits", tracking_uri=store, artifact_location=str(tmp_path / "artifacts"))
    for steps in (range(1, 4), range(2, 6)):
        loggers = Loggers((logger,), tmp_path, {"model": {"width": 3}, "total": "5 steps"})
        loggers.begin(steps[0] - 1)
        for step in steps:
            loggers.metrics(step, {"train/loss": 1 / step})
        loggers.figures(steps[-1], "test", FIGURES)
        loggers.finished = True
        loggers.close()
    send_evaluation((logger,), tmp_path, {}, 4, {"test": ({"top1": 0.5}, FIGURES)})
    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name("digits")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.width": "3", "total": "5 steps"}
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4, 5]
    (measured,) = client.get_metric_history(run.info.run_id, "evaluation/test/top1")
    assert (measured.step, measured.value) == (4, 0.5)
    folder = next((tmp_path / "artifacts").glob("*/artifacts/evaluation/test"))
    assert (folder / "confusion/00000004.csv").exists()
    assert len(list(folder.glob("mistakes/00000004/*.png"))) == 1
    folder = next((tmp_path / "artifacts").glob("*/artifacts/test"))
    assert len(list(folder.glob("mistakes/0000000[35]/000 cat_ said dog: small.png"))) == 2
    assert (folder / "confusion/00000003.csv").read_text().splitlines()[1:] == [
        "cat,cat,4",
        "cat,dog,1",
        "dog,dog,2",
    ]
    assert (folder / "by_group/00000005.csv").read_text() == "group,top1\nday,0.5\nnight,\n"


def test_an_unreachable_mlflow_is_one_line(tmp_path: Path):
    pytest.importorskip("mlflow")
    logger = MLflow("digits", tracking_uri=f"file://{tmp_path}/none")
    with pytest.raises(LoggerError, match="cannot be used") as raised:
        Loggers((logger,), tmp_path, json.loads("{}"))
    assert "\n" not in str(raised.value)
