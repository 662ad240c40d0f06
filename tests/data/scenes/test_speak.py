"""Captions in one of several languages."""

from __future__ import annotations

import numpy as np
import pytest

from papers.m2_encoder.method import Speak
from vision.data.source import DataError
from vision.data.sources.scenes import translate

CAPTION = "a red star and a blue circle"


def test_every_language_has_its_share_and_says_the_same():
    said = [Speak()({"caption": CAPTION}, np.random.default_rng(i)) for i in range(200)]
    spoken = [each["_draws"]["Speak"]["language"] for each in said]
    assert 70 < sum(spoken) < 130
    for each, language in zip(said, spoken, strict=True):
        assert each["caption"] == translate(CAPTION, language)
        assert translate(each["caption"], language, back=True) == CAPTION


def test_what_cannot_be_said_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="'caption': 'zebra'"):
        Speak(languages=(1,))({"caption": "a zebra"}, rng)
    with pytest.raises(ValueError, match="no feature 'caption' among text"):
        Speak()({"text": CAPTION}, rng)
    with pytest.raises(ValueError, match="languages"):
        Speak(languages=(-1,))
