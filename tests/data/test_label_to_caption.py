"""Sentences about the class of a labelled image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vision.data.ops.classes import LabelToCaption
from vision.data.source import DataError

NAMES = ("wug", "dax")
TOLD = (("it is red.", "it is round."), ())


def said(op: LabelToCaption, label: int, draws: int = 60) -> list[str]:
    found = [op({"label": label}, np.random.default_rng(i)) for i in range(draws)]
    assert all(each["label"] == label for each in found)
    return [each["caption"] for each in found]


def test_every_text_comes_and_is_one_that_can_be_said(tmp_path: Path):
    op = LabelToCaption(NAMES, ("a {}.", "the {}."), TOLD)
    assert op.texts == (
        (
            "a wug. it is red.",
            "a wug. it is round.",
            "the wug. it is red.",
            "the wug. it is round.",
        ),
        ("a dax.", "the dax."),
    )
    for label, texts in enumerate(op.texts):
        assert set(said(op, label)) == set(texts)
    path = tmp_path / "told.json"
    path.write_text(json.dumps(dict(zip(NAMES, TOLD, strict=True))))
    assert LabelToCaption(templates=op.templates, file=str(path)).texts == op.texts


def test_a_share_is_described():
    op = LabelToCaption(NAMES, ("{}",), TOLD, described=0.25)
    assert 270 < said(op, 0, 400).count("wug") < 330
    assert set(said(LabelToCaption(NAMES, ("{}",), TOLD, described=0.0), 0)) == {"wug"}


def test_what_is_wrong_is_named(tmp_path: Path):
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"'label' is -1, not a class in 0\.\.1"):
        LabelToCaption(NAMES)({"label": -1}, rng)
    with pytest.raises(ValueError, match="no feature 'label' among image"):
        LabelToCaption(NAMES)({"image": 0}, rng)
    with pytest.raises(ValueError, match="give names"):
        LabelToCaption()
    with pytest.raises(ValueError, match="1 descriptions of 2 names"):
        LabelToCaption(NAMES, descriptions=((),))
    path = tmp_path / "told.json"
    path.write_text('{"wug": "red"}')
    with pytest.raises(DataError, match="'wug' needs a list"):
        LabelToCaption(file=str(path))({"label": 0}, rng)
