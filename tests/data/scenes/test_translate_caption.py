"""Captions in one of several languages."""

from __future__ import annotations

import numpy as np
import pytest

from vision.data.source import DataError
from vision.data.sources.scenes import translate
from vision.data.sources.scenes.translate_caption import TranslateCaption

CAPTION = "a red star and a blue circle"


def test_every_language_has_its_share_and_says_the_same():
    said = [TranslateCaption()({"caption": CAPTION}, np.random.default_rng(i)) for i in range(200)]
    spoken = [each["_draws"]["TranslateCaption"]["language"] for each in said]
    assert 70 < sum(spoken) < 130
    for each, language in zip(said, spoken, strict=True):
        assert each["caption"] == translate(CAPTION, language)
        assert translate(each["caption"], language, back=True) == CAPTION


def test_what_cannot_be_said_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="'caption': 'zebra'"):
        TranslateCaption(languages=(1,))({"caption": "a zebra"}, rng)
    with pytest.raises(ValueError, match="no feature 'caption' among text"):
        TranslateCaption()({"text": CAPTION}, rng)
    with pytest.raises(ValueError, match="languages"):
        TranslateCaption(languages=(-1,))
