"""One flipped bit in any file of a workdir is harmless or said, by every reader of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.workdir_flips import Read, flips, judged


@pytest.mark.slow
def test_no_reader_takes_a_flip_for_what_was_written(tmp_path: Path):
    found = flips(tmp_path, 60, seed=5)
    assert [flip for flip in found if flip.outcome in ("silent", "traceback")] == []
    assert {flip.outcome for flip in found} == {"harmless", "noticed"}
    assert len({flip.file for flip in found}) > 15


def test_the_worst_reader_counts():
    before = {"a": Read(1), "b": Read(2)}
    outcomes = {
        "harmless": {"a": Read(1), "b": Read(2)},
        "noticed": {"a": Read(1), "b": Read(None, "f.json is damaged")},
        "silent": {"a": Read(None, "f.json is damaged"), "b": Read(3)},
        "traceback": {"a": Read(5), "b": Read(None, "f.json", "KeyError: 'x'")},
    }
    for outcome, results in outcomes.items():
        assert judged("run/f.json", 0, 0, results, before).outcome == outcome
    said = {"a": Read(1), "b": Read(None, "something is damaged")}
    assert not judged("run/f.json", 0, 0, said, before).named
