"""Emoji: real drawings by three houses, with a hierarchy, domains and names in 28 languages.

``emoji.zip`` holds them (``packed``), ``build.py`` made it, ``Emoji`` is the data source.
"""

from vision.data.sources.emoji.compose import Placed, compose
from vision.data.sources.emoji.features import FEATURES
from vision.data.sources.emoji.packed import (
    GROUPS,
    HOUSES,
    LANGUAGES,
    TONES,
    Drawing,
    Index,
    Sign,
    index,
    names,
    pixels,
)
from vision.data.sources.emoji.source import LABELS, Emoji, unseen_families

__all__ = [
    "FEATURES",
    "GROUPS",
    "HOUSES",
    "LABELS",
    "LANGUAGES",
    "TONES",
    "Drawing",
    "Emoji",
    "Index",
    "Placed",
    "Sign",
    "compose",
    "index",
    "names",
    "pixels",
    "unseen_families",
]
