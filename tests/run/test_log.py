"""What a run writes down: rows once, event files that read back, lines for people."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore

from vision.run.log import Meter, MetricLog, Progress, RowFile, duration, rate, read_rows
from vision.run.sealed import unseal


def test_rows_of_one_step_are_merged_and_non_finite_is_null(tmp_path: Path):
    log = MetricLog(tmp_path, 0)
    log.write(1, {"a": 1.0})
    log.write(1, {"b": float("nan")})
    log.write(2, {"a": 2.0})
    log.flush()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [unseal(line) for line in text.splitlines()] == [
        ({"step": 1, "a": 1.0, "b": None}, True),
        ({"step": 2, "a": 2.0}, True),
    ]


def test_reopening_drops_what_no_checkpoint_holds(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = RowFile(path, 0)
    for step in range(1, 6):
        rows.write({"step": step})
    with path.open("a") as file:
        file.write('{"step": 6, "cut o')
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
    rows = RowFile(path, 3)
    rows.write({"step": 4, "again": True})
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4]
    assert read_rows(path)[-1]["again"]


def test_rows_wait_while_the_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "later"
    rows = RowFile(folder / "rows.jsonl", 0)
    rows.write({"step": 1})  # the folder does not exist: the write fails
    assert "rows wait" in caplog.text
    folder.mkdir()
    rows.write({"step": 2})
    assert [row["step"] for row in read_rows(folder / "rows.jsonl")] == [1, 2]


def events(folder: Path) -> list:
    """All events, read by the TFRecord format: length, its checksum, data, its checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_event_files_hold_the_scalars_and_hide_what_was_cut_off(tmp_path: Path):
    log = MetricLog(tmp_path, 0)
    log.write(7, {"train/loss": 0.5})
    log.flush()
    values = [
        (event.step, value.tag, value.simple_value)
        for event in events(tmp_path / "tensorboard")
        for value in event.summary.value
    ]
    assert values == [(7, "train/loss", 0.5)]
    for file in (tmp_path / "tensorboard").iterdir():
        file.unlink()
    MetricLog(tmp_path, 5).flush()
    restarts = [e.step for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert restarts == [6]


def test_a_log_reopened_at_step_0_hides_the_abandoned_events_and_overwrites_none(tmp_path: Path):
    for steps in (3, 2):
        log = MetricLog(tmp_path, 0)
        for step in range(1, steps + 1):
            log.write(step, {"train/loss": 0.5})
        log.flush()
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    in_order = [
        "restart" if event.HasField("session_log") else event.step
        for event in events(tmp_path / "tensorboard")
        if event.HasField("session_log") or event.summary.value
    ]
    assert in_order == [1, 2, 3, "restart", 1, 2]
    assert first.stat().st_size > second.stat().st_size > 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_rewrites_a_terminal_line_and_prints_rows_elsewhere():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        progress = Progress(100, stream, interval_s=0)
        progress.show(10, 1.25, images_per_s=200.0, data_wait=0.051, batch_size=20)
        progress.say("a line")
    line = "step 10/100  loss 1.2500  200 images/s  data 5%  ETA 0:09"
    assert terminal.getvalue().startswith("\r" + line)
    assert terminal.getvalue().endswith("\ra line\n")
    assert pipe.getvalue() == line + "\na line\n"


def test_meter_measures_between_readings():
    meter = Meter(batch_size=10)
    meter.add(1.0, 0.25)
    meter.add(1.0, 0.25)
    assert meter.read() == {"images_per_s": 10.0, "data_wait": 0.25}
    meter.add(0.5, 0.0)
    assert meter.read() == {"images_per_s": 20.0, "data_wait": 0.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0:07"), (247, "4:07"), (9069, "2:31:09"), (float("inf"), "?")]
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_row_that_is_flushed_twice_does_not_take_the_next_one(tmp_path: Path):
    log = MetricLog(tmp_path, 0)
    for step, values in ((5, {"a": 1.0}), (5, {"a": 1.0}), (6, {"b": 2.0})):
        log.write(step, values)
        log.flush()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 5, "a": 1.0}, {"step": 6, "b": 2.0}]


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0, "0"), (0.04123, "0.041"), (0.4, "0.4"), (3.24, "3.2"), (41.6, "42"), (1240, "1,240")],
)
def test_a_rate_is_not_rounded_to_nothing(per_second: float, text: str):
    assert rate(per_second) == text
