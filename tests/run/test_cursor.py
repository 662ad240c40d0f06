"""What a checkpoint says beside its state: written, read, and read where an older run wrote it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import jax.numpy as jnp

from vision.checkpoint.manifest import CheckpointManifest
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.run.clock import Stopwatch
from vision.run.cursor import RunCursor

CURSOR = RunCursor(
    step=7,
    time=1.5e9,
    seconds={"step": 3.5, "data": 0.25},
    starts=2,
    data_offset=3,
    bad_records=4,
    skipped=5,
    skipped_in_a_row=1,
    unevaluated=True,
    best_value=0.75,
    best_step=6,
    evaluations_since_best=2,
)


def test_every_field_comes_back_from_a_checkpoint(tmp_path: Path):
    default = RunCursor()
    for field in dataclasses.fields(RunCursor):
        assert getattr(CURSOR, field.name) != getattr(default, field.name), field.name
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(CURSOR.step, {"x": jnp.ones(2)}, CURSOR.to_json(), wait=True)
    store.close()
    meta = CheckpointManifest.read(tmp_path / "checkpoints" / "7").meta
    assert RunCursor.from_json(meta) == CURSOR


def test_meta_data_of_other_versions_is_read():
    assert RunCursor.from_json({"step": 0}) == RunCursor()
    older = {"step": 7, "time": 2.0, "seconds": {"step": 1.0}, "metrics": {}}
    assert RunCursor.from_json(older) == RunCursor(7, 2.0, {"step": 1.0})
    newer = json.loads(json.dumps(CURSOR.to_json() | {"moon": "full"}))
    assert RunCursor.from_json(newer) == CURSOR


def test_a_run_that_begins_lost_no_time():
    watch = Stopwatch({"start": 1.0})
    watch.resume(RunCursor(), {"time": time.time()}, age_s=5.0)
    assert watch.seconds == {"start": 1.0}
    now = time.time()
    watch.resume(RunCursor(time=now - 30, seconds={"start": 2.0}), {"time": now - 20}, age_s=5.0)
    assert watch.seconds["start"] == 3.0
    assert round(watch.seconds["lost"]) == 10
    assert 14 <= watch.seconds["down"] <= 16
