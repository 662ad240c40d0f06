"""Reading ``emoji.zip``: which emoji there are, what they are called, what they look like.

The archive has ``index.json``, a file of names and keywords per language, sheets of drawings per
house, ``made_from.json`` with the digests of all of them, and the licences. ``build.py`` writes it.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from vision.data.source import DataError

PATH = Path(__file__).with_name("emoji.zip")
SHA256 = "0ff7b66707f90c654bd31d2e172b93ecf5c2fb079a962dcb671cbda2156bc659"
"""Of the file that is committed; a test compares."""

HOUSES = ("noto", "twemoji", "fluent")
"""Who drew: Google, Twitter, Microsoft."""
TONES = ("default", "light", "dark")
"""Skin tones; most emoji have the first one only."""
SIDE_PX = 48
"""Height and width of a stored drawing."""
CELLS = 16
"""Columns of a sheet, and its rows at most."""

GROUPS = (
    *("smileys-emotion", "people-body", "component", "animals-nature", "food-drink"),
    *("travel-places", "activities", "objects", "symbols", "flags"),
)
"""The coarsest level, in Unicode's order."""
LANGUAGES = (
    *("bn", "da", "de", "en", "en-gb", "es", "es-mx", "et", "fi", "fr", "hi", "hu", "it", "ja"),
    *("ko", "lt", "ms", "nb", "nl", "pl", "pt", "ru", "sv", "th", "uk", "vi", "zh", "zh-hant"),
)
"""In which names and keywords are there."""

_PERSON, _ADULTS = "1F9D1", ("1F468", "1F469")
_GENDERS_AND_TURNS = ("2640", "2642", "27A1")


@dataclasses.dataclass(frozen=True)
class Sign:
    """One emoji, whoever draws it.

    Attributes:
      code: code points in hexadecimal, joined with ``-``, without variation selectors.
      group: number in ``GROUPS``.
      subgroup: number in ``Index.subgroups``.
    """

    code: str
    group: int
    subgroup: int

    @property
    def family(self) -> str:
        """What emoji that differ in gender or direction only have in common: the code of the
        person who does the same, ``1F3C3`` for the man, the woman and the person running."""
        parts = self.code.split("-200D-")
        parts = [part for part in parts if part not in _GENDERS_AND_TURNS]
        if len(parts) == 2 or (len(parts) == 1 and parts[0] in _ADULTS):
            parts[0] = _PERSON if parts[0] in _ADULTS else parts[0]
        return "-200D-".join(parts)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One picture: an emoji by a house in a skin tone.

    Attributes:
      emoji: number in ``Index.emoji``.
      house: number in ``HOUSES``.
      tone: number in ``TONES``.
      place: number of the cell among those of the house.
    """

    emoji: int
    house: int
    tone: int
    place: int


@dataclasses.dataclass(frozen=True)
class Index:
    """What the archive holds.

    Attributes:
      subgroups: names of the middle level, in Unicode's order.
      emoji: in Unicode's order.
      drawings: by house, then tone, then emoji.
    """

    subgroups: tuple[str, ...]
    emoji: tuple[Sign, ...]
    drawings: tuple[Drawing, ...]


def read(member: str) -> bytes:
    """The bytes of a file of the archive; zip's checksum is verified.

    Raises:
      DataError: the archive is missing or damaged, or has no such file.
    """
    try:
        with zipfile.ZipFile(PATH) as archive:
            return archive.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{PATH}: {member!r} cannot be read: {error}; check the file out again, or build it "
            "with python -m vision.data.sources.emoji.build"
        ) from error


@functools.cache
def index() -> Index:
    """The archive's index, read once per process."""
    content = json.loads(read("index.json"))
    if tuple(content["groups"]) != GROUPS or tuple(content["languages"]) != LANGUAGES:
        raise DataError(f"{PATH}: groups or languages are not those of this version of the code")
    return Index(
        tuple(content["subgroups"]),
        tuple(Sign(*row) for row in content["emoji"]),
        tuple(
            Drawing(emoji, house, tone, place)
            for house, name in enumerate(HOUSES)
            for place, (emoji, tone) in enumerate(content["drawings"][name])
        ),
    )


@functools.cache
def names(language: str) -> tuple[tuple[str, ...], ...]:
    """For every emoji its name in a language of ``LANGUAGES`` and, after it, its keywords."""
    return tuple(tuple(row) for row in json.loads(read(f"names/{language}.json")))


@functools.cache
def _sheet(house: int, number: int) -> np.ndarray:
    data = read(f"{HOUSES[house]}/{number:02}.webp")
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    pixels.flags.writeable = False
    return pixels


def pixels(drawing: Drawing) -> np.ndarray:
    """A drawing as read-only uint8 [48, 48, 4], RGB and alpha. Its sheet stays in memory."""
    number, cell = divmod(drawing.place, CELLS * CELLS)
    row, column = divmod(cell, CELLS)
    y, x = row * SIDE_PX, column * SIDE_PX
    return _sheet(drawing.house, number)[y : y + SIDE_PX, x : x + SIDE_PX]
