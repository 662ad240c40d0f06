from __future__ import annotations

from bench import parity


def test_the_tables_are_what_was_measured():
    """If a page differs: python -m bench.parity --models none --write"""
    for path in parity.PAGES:
        assert parity.page(path) == path.read_text(encoding="utf-8")
    rows = parity.read()
    assert [row["model"] for row in rows] == [*parity.MODELS]
    for row in rows:
        errors = row["max relative error"], row["max relative error there"]
        assert max(map(float, errors)) < 1e-4, row["model"]
        same, _, total = row["tensors bit for bit"].partition(" of ")
        assert same == total, row["model"]
