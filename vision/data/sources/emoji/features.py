"""The features that an example of emoji can have, by name: image, labels, masks, texts.

Things that come per object are padded to the most objects of the source; ``valid`` says which rows
are true.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from vision.data.sources.emoji import packed
from vision.data.sources.emoji.compose import Placed, compose
from vision.data.sources.emoji.packed import Drawing, Sign
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.drawn_features import Feature, padded, rendered
from vision.data.sources.scenes.record import Scene
from vision.data.sources.scenes.renderer import Rendering

if TYPE_CHECKING:
    from vision.data.sources.emoji.source import Emoji


@dataclasses.dataclass(frozen=True)
class Example:
    """Example ``index`` of ``source`` with whatever is made from it, each made once if asked.

    Attributes:
      source: the emoji.
      index: number of the example.
    """

    source: Emoji
    index: int

    @functools.cached_property
    def placed(self) -> tuple[Placed, ...]:
        return self.source.placed(self.index)

    @property
    def subject(self) -> Drawing:
        return self.placed[0].drawing

    @property
    def sign(self) -> Sign:
        return packed.index().emoji[self.subject.emoji]

    @functools.cached_property
    def ground(self) -> Scene | None:
        return self.source.ground(self.index)

    @functools.cached_property
    def rendering(self) -> Rendering:
        return compose(self.ground, self.placed, self.source.image_shape)

    @functools.cached_property
    def language(self) -> str:
        return self.source.language_of(self.index)

    def padded(self, rows: np.ndarray, fill: float = 0) -> np.ndarray:
        """``rows`` [K, ...] with rows of ``fill`` up to the source's most objects."""
        return padded(rows, self.source.num_objects[1], fill)


def _fixed(text: str) -> Callable[[Emoji], str]:
    def describe(source: Emoji) -> str:
        height, width = source.image_shape
        most = str(source.num_objects[1])
        return text.replace("{K}", most).replace("{HW}", f"{height},{width}")

    return describe


def _caption(example: Example) -> str:
    names = packed.names(example.language)
    return ", ".join(names[thing.drawing.emoji][0] for thing in example.placed)


def _keywords(example: Example) -> str:
    name, *keywords = packed.names(example.language)[example.subject.emoji]
    return ", ".join(keywords) or name


@functools.cache
def family_numbers() -> dict[str, int]:
    """Numbers of the families, in Unicode's order."""
    families = dict.fromkeys(sign.family for sign in packed.index().emoji)
    return {family: number for number, family in enumerate(families)}


def _segmentation(example: Example) -> np.ndarray:
    signs = packed.index().emoji
    codes = [0, *(1 + signs[thing.drawing.emoji].group for thing in example.placed)]
    return np.array(codes, np.uint8)[example.rendering.instances]


def _objects(example: Example) -> np.ndarray:
    labels = [example.source.label_of(thing.drawing) for thing in example.placed]
    return example.padded(np.array(labels, np.int32), -1)


def _geometry(example: Example) -> np.ndarray:
    rows = [(t.y, t.x, t.size, t.rotation_deg) for t in example.placed]
    return example.padded(np.array(rows, np.float32))


def _background(example: Example) -> np.int32:
    kind = "" if example.ground is None else example.ground.background.kind
    return np.int32(words.BACKGROUNDS.index(kind) if kind else -1)


FEATURES: MappingProxyType[str, Feature] = MappingProxyType(
    {
        "image": Feature(_fixed("uint8[{HW},3], 0..255, RGB"), lambda e: e.rendering.image),
        "label": Feature(
            lambda source: f"int32, 0..{len(source.class_names) - 1}, {source.label}",
            lambda e: np.int32(e.source.label_of(e.subject)),
        ),
        "drawing": Feature(
            _fixed("uint8[48,48,4], 0..255, RGB and alpha of the subject, as it is stored"),
            lambda e: packed.pixels(e.subject).copy(),
        ),
        "hierarchy": Feature(
            _fixed("int32[3]: group, subgroup and emoji of the subject, of all there are"),
            lambda e: np.array((e.sign.group, e.sign.subgroup, e.subject.emoji), np.int32),
        ),
        "family": Feature(
            _fixed("int32, common to emoji that differ in skin tone, gender or direction only"),
            lambda e: np.int32(family_numbers()[e.sign.family]),
        ),
        "house": Feature(
            _fixed(f"int32, 0..{len(packed.HOUSES) - 1}, who drew the subject: the domain"),
            lambda e: np.int32(e.subject.house),
        ),
        "tone": Feature(
            _fixed(f"int32, 0..{len(packed.TONES) - 1}, skin tone of the subject"),
            lambda e: np.int32(e.subject.tone),
        ),
        "background": Feature(
            _fixed(f"int32, 0..{len(words.BACKGROUNDS) - 1}, -1 for white"), _background
        ),
        "valid": Feature(
            _fixed("bool[{K}], which rows are objects"),
            lambda e: np.arange(e.source.num_objects[1]) < len(e.placed),
        ),
        "objects": Feature(_fixed("int32[{K}], class of every object, -1 padded"), _objects),
        "geometry": Feature(
            _fixed("float32[{K},4]: centre y and x, half the side (shares of the image), turn"),
            _geometry,
        ),
        **rendered(_fixed),
        "segmentation": Feature(
            _fixed(f"uint8[{{HW}}], 0 background, 1..{len(packed.GROUPS)} group"), _segmentation
        ),
        "language": Feature(
            lambda source: f"int32, 0..{len(source.languages) - 1}, of caption and keywords",
            lambda e: np.int32(e.source.languages.index(e.language)),
        ),
        "caption": Feature(_fixed("string, names of the objects, the subject's first"), _caption),
        "keywords": Feature(
            _fixed("string, what the subject has to do with, separated by commas"), _keywords
        ),
        "names": Feature(
            lambda source: f"tuple of {len(source.languages)} strings, the subject per language",
            lambda e: tuple(
                packed.names(language)[e.subject.emoji][0] for language in e.source.languages
            ),
        ),
    }
)
"""Every feature by name."""
