"""Files beside the checkpoints: one flipped bit is noticed, named, and costs one row at most."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vision.run.clock import HEARTBEAT, Heartbeat, last_heartbeat
from vision.run.experiment import DataSpec
from vision.run.log import RowFile, read_rows
from vision.run.sealed import NotAsWrittenError, seal, unseal
from vision.run.workdir import WorkdirError

ROWS = [{"step": step, "train/loss": 1 / step, "text": "é \u2028"} for step in range(1, 5)]


def flips(data: bytes) -> list[bytes]:
    """The data with one bit changed, each bit of each byte once."""
    return [
        data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]
        for i in range(len(data))
        for bit in range(8)
    ]


def test_a_sealed_row_is_json_and_comes_back():
    for indent in (None, 2):
        text = seal(ROWS[0], indent)
        assert {k: v for k, v in json.loads(text).items() if k != "_crc32"} == ROWS[0]
        assert unseal(text) == (ROWS[0], True)
    assert unseal(json.dumps(ROWS[0])) == (ROWS[0], False)
    with pytest.raises(NotAsWrittenError, match="checksum differs"):
        unseal(seal(ROWS[0]).replace("1.0", "1.5"))


def test_a_flipped_bit_in_a_row_costs_that_row_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path, 0)
    for row in ROWS:
        file.write(row)
    lines = path.read_bytes().splitlines(keepends=True)
    before, damaged, after = lines[0], lines[1], b"".join(lines[2:])
    for flipped in flips(damaged):
        path.write_bytes(before + flipped + after)
        caplog.clear()
        kept = read_rows(path)
        # The end of the line itself changed: the next one cannot be told from it.
        assert kept in ([ROWS[0], *ROWS[2:]], [ROWS[0], ROWS[3]])
        assert "line 2 is left out" in caplog.text
    reopened = RowFile(path, 3)
    reopened.write({"step": 4})
    assert [row["step"] for row in read_rows(path)][-1] == 4


def test_rows_without_checksums_are_older_ones(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read_rows(path) == ROWS
    with path.open("a") as file:
        file.write(seal({"step": 5}) + "\n" + json.dumps({"step": 6}) + "\n")
    assert read_rows(path) == [*ROWS, {"step": 5}]


def test_a_flipped_bit_in_a_heartbeat_is_no_heartbeat(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Heartbeat(tmp_path).beat(7, "step", now=True)
    path = tmp_path / HEARTBEAT
    data, beat = path.read_bytes(), last_heartbeat(tmp_path)
    for flipped in flips(data):
        path.write_bytes(flipped)
        assert last_heartbeat(tmp_path) in (None, beat)
    assert "heartbeat.json is damaged" in caplog.text


def loaded_or_error(path: Path) -> object:
    try:
        return DataSpec.load(path)
    except WorkdirError as error:
        return "damaged" if re.search(r"run\.json is damaged.*train\.py", str(error)) else error


def test_a_flipped_bit_in_run_json_is_named_with_the_way_out(tmp_path: Path):
    spec = DataSpec(10, ("a", "b"), {"image": ((4, 8, 8, 1), "uint8")})
    path = tmp_path / "run.json"
    spec.save(path)
    assert DataSpec.load(path) == spec
    for flipped in flips(path.read_bytes()):
        path.write_bytes(flipped)
        assert loaded_or_error(path) in (spec, "damaged")
    path.unlink()
    with pytest.raises(WorkdirError, match="No such file"):
        DataSpec.load(path)
