"""Losses that are not finite: stop, skip or go back."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
import pytest

from tests.patch_tower import PatchTower
from vision.checkpoint.manifest import CheckpointManifest
from vision.checkpoint.reading import load_state
from vision.config.specs import load, spec
from vision.data.pipeline import TrainData
from vision.data.source import SourceInfo
from vision.data.sources.digits import Digits
from vision.run import experiment
from vision.run.log import read_rows
from vision.run.loop import Outcome, train
from vision.run.nonfinite import Nonfinite, TrainingError
from vision.train import schedule
from vision.train.state import digest

ROOT = Path(__file__).resolve().parents[2]
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Damaged:
    """Digits as floats, some of them NaN."""

    nan: tuple[int, ...] = ()

    @property
    def info(self) -> SourceInfo:
        return Digits("train").info

    def __len__(self) -> int:
        return 128

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = Digits("train")[index]
        image = record["image"].astype(np.float32) / 255
        return {**record, "image": image * (np.nan if index in self.nan else 1)}

    def key(self, index: int) -> str:
        return str(index)


def config(nan: tuple[int, ...], total: int, **nonfinite: Any) -> ml_collections.ConfigDict:
    overrides = {
        "total": f"{total} steps",
        "log_every": "1 steps",
        "checkpoints.every": "3 steps",
        "checkpoints.keep": "20",
    }
    made: Any = load(f"{ROOT}/configs/digits_vit.py", overrides)
    made.data = spec(TrainData, source=spec(Damaged, nan=nan), batch_size=BATCH, threads=0)
    made.model = spec(PatchTower)
    made.evaluators = {}
    made.optimizer.schedule = spec(schedule.Constant)
    made.nonfinite = spec(Nonfinite, **nonfinite)
    experiment.check(made)
    return made


def order(count: int) -> list[list[int]]:
    """Record indices of the first batches."""
    data = TrainData(Damaged(), BATCH, threads=0)
    with data.loader(seed=0) as loader:
        return [next(loader)["_index"].tolist() for _ in range(count)]


def run(folder: Path, *arguments: Any, **nonfinite: Any) -> Outcome:
    return train(config(*arguments, **nonfinite), folder)


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return read_rows(folder / name)


def finite(folder: Path) -> bool:
    _, state = load_state(folder)
    return all(np.isfinite(x).all() for x in state.values() if x.dtype.kind == "f")


def test_stop_names_the_update_and_lets_no_nan_into_a_checkpoint(tmp_path: Path):
    batches = order(8)
    bad = next(i for i in batches[4] if all(i not in b for b in batches[:4]))
    with pytest.raises(TrainingError, match=r"update 5 is not finite: loss nan.*clip_norm"):
        run(tmp_path, (bad,), 8)
    step, _ = load_state(tmp_path)
    assert step == 3
    assert finite(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
    assert rows(tmp_path)[-1]["train/loss"] is None


def test_skip_leaves_the_state_bit_for_bit_and_lists_the_records(tmp_path: Path):
    batches = order(6)
    bad = next(i for i in batches[5] if all(i not in b for b in batches[:5]))
    outcome = run(tmp_path / "skipped", (bad,), 6, action="skip")
    assert outcome.step == 6
    assert outcome.metrics["train/skipped_updates"] == 1
    run(tmp_path / "short", (), 5, action="skip")
    _, skipped = load_state(tmp_path / "skipped")
    _, short = load_state(tmp_path / "short")
    assert int(skipped.pop("step")) == 6
    assert int(short.pop("step")) == 5
    assert digest(skipped) == digest(short)
    (row,) = rows(tmp_path / "skipped", "skipped.jsonl")
    assert row["step"] == row["update"] == 6
    assert row["records"] == batches[5]
    assert row["loss"] == "nan"
    assert rows(tmp_path / "short", "skipped.jsonl") == []


def test_skip_gives_up_after_so_many_in_a_row(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"update 2 .*like 1 before it in a row"):
        run(tmp_path, tuple(range(128)), 8, action="skip", limit=2)
    assert len(rows(tmp_path, "skipped.jsonl")) == 2


@pytest.mark.slow
def test_rollback_goes_on_behind_the_batch_that_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    batches = order(12)
    bad = next(i for i in batches[4] if all(i not in batches[n] for n in (*range(4), 5, 6)))
    with caplog.at_level(logging.ERROR):
        outcome = run(tmp_path / "a", (bad,), 6, action="rollback")
    assert outcome.step == 6
    assert finite(tmp_path / "a")
    assert [row["step"] for row in rows(tmp_path / "a")] == [1, 2, 3, 4, 5, 6]
    (row,) = rows(tmp_path / "a", "skipped.jsonl")
    assert (row["step"], row["update"], row["action"]) == (3, 5, "rollback")
    assert row["records"] == batches[4]
    assert not caplog.records
    # Updates 4, 5 and 6 take batches 5, 6 and 7: the run is the same as one resumed there.
    run(tmp_path / "b", (bad,), 6, action="rollback")
    assert digest(load_state(tmp_path / "a")[1]) == digest(load_state(tmp_path / "b")[1])
    # The place in the data is kept: going on from the end is going on in one piece.
    run_on = config((bad,), 9, action="rollback")
    train(run_on, tmp_path / "a", accept_config_change=True)
    train(config((bad,), 9, action="rollback"), tmp_path / "c")
    assert digest(load_state(tmp_path / "a")[1]) == digest(load_state(tmp_path / "c")[1])


@pytest.mark.parametrize("every", [5, 6])
def test_rollback_waits_for_a_save_that_is_under_way(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The save takes longer than the steps up to the failure; the result is that of fast saves."""
    batches = order(12)
    bad = next(i for i in batches[6] if all(i not in b for b in batches[:6] + batches[7:]))

    def rolled_back(folder: Path) -> str:
        made: Any = config((bad,), 10, action="rollback")
        made.checkpoints.every = f"{every} steps"
        assert train(made, folder).step == 10
        assert [row["step"] for row in rows(folder)] == list(range(1, 11))
        (skipped,) = rows(folder, "skipped.jsonl")
        assert (skipped["step"], skipped["update"]) == (every, 7)
        return digest(load_state(folder)[1])

    fast = rolled_back(tmp_path / "fast")
    quick = CheckpointManifest.encode

    def slow(self: CheckpointManifest) -> bytes:
        time.sleep(1.5)
        return quick(self)

    monkeypatch.setattr(CheckpointManifest, "encode", slow)
    assert rolled_back(tmp_path / "slow") == fast


def test_rollback_without_a_checkpoint_begins_again_and_gives_up_in_the_end(tmp_path: Path):
    with pytest.raises(TrainingError, match="went back 2 times before"):
        run(tmp_path, tuple(range(128)), 8, action="rollback", limit=2)
    assert [row["step"] for row in rows(tmp_path, "skipped.jsonl")] == [0, 0]


def test_policies_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="limit is 0, expected a whole number >= 1"):
        Nonfinite(limit=0)
