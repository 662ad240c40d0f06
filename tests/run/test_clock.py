"""The account of a run's time, and its sign of life."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from vision.run.clock import HEARTBEAT, Heartbeat, Stopwatch, last_heartbeat, process_age_s


def test_stopwatch_goes_on_where_the_last_one_stopped():
    first = Stopwatch()
    first.add("step", 6.0)
    first.add("data", 2.0)
    second = Stopwatch(first.seconds)
    second.add("step", 2.0)
    second.add("lost", 6.0)
    second.add("down", 1000.0)
    assert second.seconds["step"] == 8.0
    assert second.total_s == 16.0
    assert second.goodput == 0.5
    assert second.shares() == "step 50%, lost 38%, data 12%, and 1000 s down"
    assert first.seconds["step"] == 6.0


def test_a_clock_that_was_set_back_takes_no_time_away():
    watch = Stopwatch({"step": 1.0})
    watch.add("down", -3600.0)
    assert watch.total_s == 1.0


def test_stopwatch_counts_a_block_that_fails():
    watch = Stopwatch()

    def fail() -> None:
        with watch("evaluate"):
            time.sleep(0.02)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert watch.seconds["evaluate"] >= 0.02


def test_heartbeat_is_rewritten_at_most_so_often(tmp_path: Path):
    assert last_heartbeat(tmp_path) is None
    heart = Heartbeat(tmp_path, interval_s=100)
    before = time.time()
    heart.beat(3, "step")
    heart.beat(4, "step")
    found = last_heartbeat(tmp_path)
    assert found is not None
    assert found["step"] == 3
    assert before <= found["time"] <= time.time()
    heart.beat(5, "checkpoint", now=True)
    found = last_heartbeat(tmp_path)
    assert found is not None
    assert (found["step"], found["activity"]) == (5, "checkpoint")
    assert [p.name for p in tmp_path.iterdir()] == [HEARTBEAT]


def test_a_heartbeat_cut_short_is_no_heartbeat(tmp_path: Path):
    (tmp_path / HEARTBEAT).write_text(json.dumps({"step": 1})[:-3])
    assert last_heartbeat(tmp_path) is None


def test_process_age_is_that_of_this_process():
    age_s = process_age_s()
    assert age_s > 0
    time.sleep(0.05)
    assert process_age_s() - age_s == pytest.approx(0.05, abs=0.05)
    started = os.stat(f"/proc/{os.getpid()}").st_ctime
    assert time.time() - started == pytest.approx(process_age_s(), abs=2.0)
