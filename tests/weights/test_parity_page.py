from __future__ import annotations

from bench import parity


def test_the_table_is_what_was_measured():
    """If the page differs: python -m bench.parity --models none --write"""
    text = parity.PAGE.read_text(encoding="utf-8")
    assert parity.page(text) == text
    rows = parity.read()
    assert [row["model"] for row in rows] == [*parity.MODELS]
    for row in rows:
        errors = row["max relative error"], row["max relative error there"]
        assert max(map(float, errors)) < 1e-4, row["model"]
        same, _, total = row["tensors bit for bit"].partition(" of ")
        assert same == total, row["model"]
