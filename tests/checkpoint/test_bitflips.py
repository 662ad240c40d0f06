"""One flipped bit anywhere in a checkpoint: the same state, or the one before it, never a third."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bitflips import flips


@pytest.mark.slow
def test_no_flip_is_restored_silently(tmp_path: Path):
    found = flips(tmp_path, 20, seed=1)
    assert [flip for flip in found if flip.outcome == "silent"] == []
    # Both of the other outcomes occur, or nothing would have been shown.
    assert {flip.outcome for flip in found} == {"harmless", "noticed"}
    assert len({flip.file for flip in found}) > 5
