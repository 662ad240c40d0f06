"""Emoji by three houses as a source of examples: real drawings on any ground."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vision.config.ranges import (
    Fraction,
    NonEmpty,
    NonNegative,
    Positive,
    PositiveRange,
    Unique,
    checked,
    one_of,
)
from vision.data.fingerprint import content
from vision.data.source import SourceInfo
from vision.data.sources.emoji import packed
from vision.data.sources.emoji.compose import Placed
from vision.data.sources.emoji.features import FEATURES, Example
from vision.data.sources.emoji.packed import Drawing, Sign
from vision.data.sources.scenes import draws
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import between, choice
from vision.data.sources.scenes.layout import draw_clutter, find_place
from vision.data.sources.scenes.numbered import NumberedExamples, Side
from vision.data.sources.scenes.record import Background, Scene
from vision.data.sources.scenes.world import Counts

House = Literal["noto", "twemoji", "fluent"]
Tone = Literal["default", "light", "dark"]
LABELS = ("emoji", "subgroup", "group", "house", "tone")
"""What can be the class of an example; the first three are levels of one hierarchy."""

_PER_OBJECT = 24
_CARD = {
    "licence": "Apache-2.0 (Noto), CC-BY-4.0 (Twemoji), MIT (Fluent; names and keywords)",
    "homepage": "vision/data/sources/emoji; npm: emoji-datasource-google, "
    "emoji-datasource-twitter, @lobehub/fluent-emoji-3d, emojibase-data",
    "citation": "Noto Emoji, Google LLC; Twemoji, Twitter, Inc. and other contributors; Fluent "
    "Emoji, Microsoft Corporation; names by emojibase after Unicode CLDR; see LICENSE.emoji.md",
    "consent": "not applicable: drawings, published by the houses under open licences",
    "personal_data": "no: people are drawn, and are nobody in particular",
    "collection": "drawn by the houses' designers for Unicode's emoji, versions 15.1 to 16; "
    "groups, names and keywords by Unicode and translators; reduced to 48 pixels by build.py",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class Emoji(NumberedExamples):
    """1,911 emoji as three houses drew them, one or several on a ground of ``scenes``.

    Example i is a pure function of the fields and i, as in ``Scenes``; splits are independent
    streams of grounds, places and companions over the same drawings. Which drawings there are is
    said by ``houses``, ``groups``, ``tones`` and ``part``. The first of several objects is the
    subject, and the largest: labels, names and keywords are about it.

    Attributes:
      seed: chooses the stream; unsigned 64-bit.
      split: name of an independent stream, such as ``train`` or ``test``.
      num_examples: length of the source; None for one example of every drawing. Example i does
        not depend on it.
      image_size: side of the image, or (height, width), in pixels; at least 8.
      features: what every example holds, names from ``features.FEATURES``.
      label: the class: ``emoji``, ``subgroup``, ``group``, ``house`` or ``tone``. Classes are
        those of ``groups``, ``houses`` and ``tones``, the same ones for every ``part``.
      houses: who drew, of ``packed.HOUSES``, in label order.
      groups: of ``packed.GROUPS``, in label order; all but the five patches of skin that are
        called ``component``.
      tones: skin tones, in label order. The others than ``default`` are near-duplicates; the
        feature ``family`` is common to them, and to emoji that differ in gender or direction.
      part: ``all`` emoji, those ``seen`` in training, or the ``unseen``.
      held_out: share of the families of every subgroup that are unseen; the choice does not depend
        on ``seed``, ``groups`` or ``houses``, and a larger share holds a smaller one.
      imbalance: ``natural`` (every drawing equally often: exactly once in every aligned run of as
        many examples as there are drawings), ``none`` (classes in equal numbers), ``zipf`` (share
        of class c proportional to (c + 1)^-skew) or ``exponential`` (the last class is ``skew``
        times rarer than the first).
      skew: strength of the imbalance.
      num_objects: fewest and most drawings in a picture.
      side: smallest and largest side of a single drawing, shares of the short side of the image;
        n of them are smaller by 0.9 / sqrt(n).
      rotation_deg: drawings are turned by at most this much to either side.
      overlap: how far drawings may reach into one another, 0 to 1 (anywhere).
      backgrounds: kinds of ground of ``scenes``; empty for white.
      clutter: number of small coloured shapes on the ground, which no label describes.
      languages: of names and keywords; every example is told in one of them.

    Raises:
      ValueError: an argument outside its range; the message names it and the valid values.
    """

    seed: NonNegative[int] = 0
    split: str = "train"
    num_examples: Positive[int] | None = None
    image_size: Side | tuple[Side, Side] = 48
    features: NonEmpty[tuple[Annotated[str, one_of(FEATURES)], ...]] = ("image", "label")
    label: Annotated[str, one_of(LABELS)] = "emoji"
    houses: Unique[NonEmpty[tuple[House, ...]]] = packed.HOUSES
    groups: Unique[NonEmpty[tuple[Annotated[str, one_of(packed.GROUPS)], ...]]] = tuple(
        name for name in packed.GROUPS if name != "component"
    )
    tones: Unique[NonEmpty[tuple[Tone, ...]]] = ("default",)
    part: Literal["all", "seen", "unseen"] = "all"
    held_out: Fraction = 0.2
    imbalance: Literal["natural", "none", "zipf", "exponential"] = "natural"
    skew: NonNegative[float] = 1.0
    num_objects: Counts = (1, 1)
    side: PositiveRange = (0.7, 0.95)
    rotation_deg: NonNegative[float] = 0.0
    overlap: Fraction = 0.0
    backgrounds: Unique[tuple[words.BackgroundKind, ...]] = words.BACKGROUNDS
    clutter: NonNegative[int] = 0
    languages: Unique[NonEmpty[tuple[Annotated[str, one_of(packed.LANGUAGES)], ...]]] = ("en",)

    def __post_init__(self) -> None:
        if self.imbalance == "exponential" and self.skew < 1:
            raise ValueError(f"skew={self.skew!r} must be at least 1 where imbalance='exponential'")

    @functools.cached_property
    def drawings(self) -> tuple[Drawing, ...]:
        """The drawings that may be the subject, by house, tone and emoji; ``ValueError`` where
        there is none."""
        index, unseen = packed.index(), unseen_families(self.held_out)
        houses = {packed.HOUSES.index(name) for name in self.houses}
        tones = {packed.TONES.index(name) for name in self.tones}
        groups = {packed.GROUPS.index(name) for name in self.groups}

        def wanted(sign: Sign) -> bool:
            inside = self.part == "all" or (sign.family in unseen) == (self.part == "unseen")
            return sign.group in groups and inside

        emoji = {number for number, sign in enumerate(index.emoji) if wanted(sign)}
        found = tuple(
            drawing
            for drawing in index.drawings
            if drawing.house in houses and drawing.tone in tones and drawing.emoji in emoji
        )
        if not found:
            raise ValueError(
                f"no drawing is left by houses={self.houses}, groups={self.groups}, "
                f"tones={self.tones}, part={self.part!r} and held_out={self.held_out}"
            )
        return found

    @functools.cached_property
    def _classes(self) -> dict[int, int]:
        """Number of a class by the number of what it stands for, in label order."""
        index = packed.index()
        groups = [packed.GROUPS.index(name) for name in self.groups]
        if self.label == "group":
            numbers = groups
        elif self.label == "house":
            numbers = [packed.HOUSES.index(name) for name in self.houses]
        elif self.label == "tone":
            numbers = [packed.TONES.index(name) for name in self.tones]
        else:
            signs = [
                (k, s) for group in groups for k, s in enumerate(index.emoji) if s.group == group
            ]
            numbers = [k if self.label == "emoji" else sign.subgroup for k, sign in signs]
        return {number: c for c, number in enumerate(dict.fromkeys(numbers))}

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order; emoji are called by their English names."""
        names: Sequence[str] = {
            "emoji": [each[0] for each in packed.names("en")],
            "subgroup": packed.index().subgroups,
            "group": packed.GROUPS,
            "house": packed.HOUSES,
            "tone": packed.TONES,
        }[self.label]
        return tuple(names[number] for number in self._classes)

    def label_of(self, drawing: Drawing) -> int:
        """Class of a drawing in this source's order; ``KeyError`` for one of no class here."""
        sign = packed.index().emoji[drawing.emoji]
        number = {
            "emoji": drawing.emoji,
            "subgroup": sign.subgroup,
            "group": sign.group,
            "house": drawing.house,
            "tone": drawing.tone,
        }[self.label]
        return self._classes[number]

    @functools.cached_property
    def _by_class(self) -> tuple[tuple[Drawing, ...], ...]:
        found: list[list[Drawing]] = [[] for _ in self.class_names]
        for drawing in self.drawings:
            found[self.label_of(drawing)].append(drawing)
        return tuple(map(tuple, found))

    @functools.cached_property
    def class_shares(self) -> tuple[float, ...]:
        """Expected share of every class of ``class_names``; sums to 1."""
        counts = [len(members) for members in self._by_class]
        if self.imbalance == "natural":
            return tuple(count / len(self.drawings) for count in counts)
        present = [c for c, count in enumerate(counts) if count]
        return draws.shares(len(counts), present, self.imbalance, self.skew)

    def subject(self, index: int) -> Drawing:
        """The drawing that example ``index`` is about."""
        stream = f"{self.split}/subject"
        if self.imbalance == "natural":
            count = len(self.drawings)
            offset, step = draws.turn(self.seed, stream, index // count, count)
            return self.drawings[(offset + step * (index % count)) % count]
        c = draws.portion(self.class_shares, draws.spread(self.seed, stream, index))
        return choice(self._by_class[c], self.uniforms(index, "subject", 1)[0])

    def placed(self, index: int) -> tuple[Placed, ...]:
        """What lies where in example ``index``; the subject is the first."""
        low, high = self.num_objects
        u = self.uniforms(index, "objects", 1 + _PER_OBJECT * high)
        count = low + int(u[0] * (high - low + 1))
        blocks = [u[1 + k * _PER_OBJECT :][:_PER_OBJECT] for k in range(count)]
        shrink = 1.0 if count == 1 else 0.9 / count**0.5
        sizes = sorted(
            (between(self.side, block[0]) * shrink / 2 for block in blocks), reverse=True
        )
        turns = (-self.rotation_deg, self.rotation_deg)
        things: list[Placed] = []
        for k, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
            drawing = choice(self.drawings, block[1]) if k else self.subject(index)
            y, x = find_place(size, things, block[4:], self.overlap, "")
            things.append(Placed(drawing, size, y, x, between(turns, block[2])))
        return tuple(things)

    def ground(self, index: int) -> Scene | None:
        """What lies behind the drawings of example ``index``; None for white."""
        if not self.backgrounds:
            return None
        u = self.uniforms(index, "ground", 4)
        background = Background(
            choice(self.backgrounds, u[0]), u[1], u[2], between((0.88, 1.06), u[3])
        )
        clutter = draw_clutter(self.uniforms(index, "clutter", 6 * self.clutter))
        return Scene((), background, clutter=clutter)

    def language_of(self, index: int) -> str:
        """The language that example ``index`` is told in."""
        return choice(self.languages, self.uniforms(index, "language", 1)[0])

    def __len__(self) -> int:
        return len(self.drawings) if self.num_examples is None else self.num_examples

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name=self.name,
            num_examples=len(self),
            class_names=self.class_names,
            features={name: FEATURES[name].describe(self) for name in self.features},
            **_CARD,
        )

    def fingerprint(self) -> str:
        """Changes with the arguments, the packed file, and the code of emoji and scenes."""
        here = Path(__file__).parent
        code = (*here.glob("*.py"), *(here.parent / "scenes").glob("*.py"))
        return content(self, paths=(str(packed.PATH),), code=code)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = Example(self, self.checked(index))
        return {name: FEATURES[name].read(example) for name in self.features}

    def __getitems__(self, indices: Sequence[int] | Iterable[int]) -> dict[str, np.ndarray]:
        """The examples of ``indices``, stacked on a new first axis; texts become arrays of
        strings."""
        examples = [self[index] for index in indices]
        if not examples:
            raise IndexError("no indices to gather")
        return {name: np.stack([example[name] for example in examples]) for name in self.features}


@functools.cache
def unseen_families(share: float) -> frozenset[str]:
    """The families that are held out: of every subgroup ``round(share * count)``, whole families,
    so that no drawing of a seen emoji nearly repeats one of an unseen emoji."""
    by_subgroup: dict[int, set[str]] = {}
    home: dict[str, int] = {}
    for sign in packed.index().emoji:
        by_subgroup.setdefault(home.setdefault(sign.family, sign.subgroup), set()).add(sign.family)
    chosen: set[str] = set()
    for families in by_subgroup.values():
        # By a hash of the code: the choice is the same everywhere, and larger shares nest.
        ranked = sorted(families, key=lambda code: hashlib.sha256(code.encode()).digest())
        chosen.update(ranked[: round(share * len(ranked))])
    return frozenset(chosen)
