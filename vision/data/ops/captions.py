"""Captions of scenes at every length."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.data.ops.base import Example, noted
from vision.data.source import DataError
from vision.data.sources.scenes.captions import (
    FIELDS,
    OPENERS,
    Mention,
    Parse,
    mention_of,
    nickname,
    write,
)
from vision.data.sources.scenes.captions import parse as read

_DETAILS = (*FIELDS, "position")


@dataclasses.dataclass(frozen=True)
class ShortenCaption:
    """Replaces a scene's caption by one that says a part of it, in other words.

    A share is drawn for every caption; every attribute, relation, the background, and every object
    but one is told with that probability. Of an object of which nothing would be told, the shape
    is. What is left is true, and opens in one of the grammar's ways. ``_draws`` notes the share
    (``share``), which objects are told (``objects``) and the opening (``template``).

    A caption outside the grammar of scenes raises DataError.

    Attributes:
      feature: the caption, one text; ``caption_long`` has the most to say.
      output: name of the new caption; ``feature`` itself is removed.
      share: least and most that is told, within 0..1.
    """

    feature: str = "caption_long"
    output: str = "caption"
    share: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        if len(self.share) != 2 or not 0 <= self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share={self.share}: must be (least, most) within 0..1")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"ShortenCaption: no feature {self.feature!r} among {names}; "
                "set ShortenCaption.feature"
            )
        try:
            whole = read(str(example[self.feature]))
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error
        share = float(rng.uniform(*self.share))

        def kept(count: int) -> list[bool]:
            return (rng.random(count) < share).tolist()

        objects = kept(len(whole.mentions))
        if not any(objects):
            objects[int(rng.integers(len(objects)))] = True
        told = [k for k, is_told in enumerate(objects) if is_told]
        mentions = tuple(_told(whole.mentions[k], kept(len(_DETAILS))) for k in told)
        relations = []
        for relation, is_told in zip(whole.relations, kept(len(whole.relations)), strict=True):
            if is_told and objects[relation.first] and objects[relation.second]:
                first, second = told.index(relation.first), told.index(relation.second)
                if _names(mentions, first) and _names(mentions, second):
                    relations.append(dataclasses.replace(relation, first=first, second=second))
        background = whole.background if kept(1)[0] else None
        template = int(rng.integers(2 * len(OPENERS)))
        text = write(Parse(mentions, tuple(relations), background), template)
        rest = {k: v for k, v in example.items() if k != self.feature}
        rest[self.output] = text
        return noted(rest, "ShortenCaption", share=share, objects=tuple(told), template=template)


def _told(mention: Mention, kept: list[bool]) -> Mention:
    said = {
        field: getattr(mention, field) for field, keep in zip(_DETAILS, kept, strict=True) if keep
    }
    if not any(said.values()):
        said["shape"] = mention.shape
    return Mention(**said)


def _names(mentions: tuple[Mention, ...], k: int) -> bool:
    """Whether the words for mention k fit it alone: a pink thing may be the pink star as well."""
    name = nickname(mentions, k)
    if not name:
        return False
    asked = mention_of(name)
    said = {field: word for field in FIELDS if (word := getattr(asked, field)) is not None}
    fitting = [all(getattr(each, f) == word for f, word in said.items()) for each in mentions]
    return sum(fitting) == 1
