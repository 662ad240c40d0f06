"""Captions of scenes at every length."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np

from vision.config.ranges import Rule, checked
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


_SHARES = Rule("(smallest, largest) within 0..1", lambda share: 0 <= share[0] <= share[1] <= 1)


@dataclasses.dataclass(frozen=True)
@checked
class ShortenCaption:
    """Replaces a scene's caption by one that says a random part of it, in other words.

    A share is drawn for every caption; every attribute, every relation, the background, and every
    object but one is kept with that probability. An object all of whose attributes are dropped
    keeps its shape. The result is true and has one of the grammar's openings. ``_draws`` notes the
    share (``share``), the objects that are kept (``objects``) and the opening (``template``).

    A caption outside the grammar of scenes raises DataError.

    Attributes:
      feature: the caption, one text; ``caption_long`` says most.
      output: name of the new caption; ``feature`` itself is removed.
      share: smallest and largest share that is kept, within 0..1.
    """

    feature: str = "caption_long"
    output: str = "caption"
    share: Annotated[tuple[float, float], _SHARES] = (0.2, 1.0)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"ShortenCaption: no feature {self.feature!r} among {names}; "
                "set ShortenCaption.feature"
            )
        try:
            parsed = read(str(example[self.feature]))
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error
        share = float(rng.uniform(*self.share))

        def draw(count: int) -> list[bool]:
            return (rng.random(count) < share).tolist()

        objects = draw(len(parsed.mentions))
        if not any(objects):
            objects[int(rng.integers(len(objects)))] = True
        kept_objects = [k for k, is_kept in enumerate(objects) if is_kept]
        mentions = tuple(_shortened(parsed.mentions[k], draw(len(_DETAILS))) for k in kept_objects)
        relations = []
        for relation, is_kept in zip(parsed.relations, draw(len(parsed.relations)), strict=True):
            if is_kept and objects[relation.first] and objects[relation.second]:
                first, second = (
                    kept_objects.index(relation.first),
                    kept_objects.index(relation.second),
                )
                if _names(mentions, first) and _names(mentions, second):
                    relations.append(dataclasses.replace(relation, first=first, second=second))
        background = parsed.background if draw(1)[0] else None
        template = int(rng.integers(2 * len(OPENERS)))
        text = write(Parse(mentions, tuple(relations), background), template)
        out = {k: v for k, v in example.items() if k != self.feature}
        out[self.output] = text
        return noted(
            out, "ShortenCaption", share=share, objects=tuple(kept_objects), template=template
        )


def _shortened(mention: Mention, is_kept: list[bool]) -> Mention:
    fields = {
        field: getattr(mention, field)
        for field, keep in zip(_DETAILS, is_kept, strict=True)
        if keep
    }
    if not any(fields.values()):
        fields["shape"] = mention.shape
    return Mention(**fields)


def _names(mentions: tuple[Mention, ...], k: int) -> bool:
    """Whether the words for mention k fit it alone: a pink thing may be the pink star as well."""
    name = nickname(mentions, k)
    if not name:
        return False
    mention = mention_of(name)
    words = {field: word for field in FIELDS if (word := getattr(mention, field)) is not None}
    fitting = [all(getattr(other, f) == word for f, word in words.items()) for other in mentions]
    return sum(fitting) == 1
