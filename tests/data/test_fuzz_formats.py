"""Files whose tags change what their bits mean, against pixels that are known without a library."""

from __future__ import annotations

import collections

import pytest

pytest.importorskip("cv2")

from bench.fuzz_formats import judge

FILES = 240


def test_every_file_is_read_as_it_is_meant_or_refused():
    verdicts = [judge(number) for number in range(FILES)]
    assert [number for number in range(FILES) if verdicts[number][1] == "silent"] == []
    counts = collections.Counter(verdict for _, verdict in verdicts)
    assert counts["equal"] > 0.8 * FILES
    kinds = {kind for kind, _ in verdicts}
    for part in ("12 bits", "planes", "signed", "reversed", "key", "turned", "thin"):
        assert any(part in kind for kind in kinds), part
    assert judge(7) == judge(7)
