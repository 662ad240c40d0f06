"""Captions in a closed grammar, with their meaning: write, read back, and check against a scene.

``describe`` takes from a scene what a caption of some detail says (the gold parse), ``write``
puts it in words, ``parse`` reads words back into the same structure, and ``agrees`` says whether
a parse is true of a scene. Every caption of ``caption`` satisfies
``parse(caption(scene)) == describe(scene)`` and ``agrees(parse(caption(scene)), scene)``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.graph import drawing_order, holds
from vision.data.sources.scenes.record import Object, Scene
from vision.data.sources.scenes.vocabulary import check_one_of

DETAILS = ("short", "medium", "long")
OPENERS = ("", "a picture of ", "there is ", "we see ", "this scene shows ")
THING = "thing"
"""Noun for an object whose shape is not told."""

FIELDS = ("size", "variant", "texture", "colour", "shape")
_MEANING = {
    word: field
    for field, names in zip(
        FIELDS,
        (words.SIZES, words.VARIANTS, words.TEXTURES, words.COLOURS, words.SHAPES),
        strict=True,
    )
    for word in names
}
_AT = {
    name: f"at the {name}"
    if name in ("top", "bottom")
    else f"on the {name}"
    if name in ("left", "right")
    else f"in the {name}"
    for name in words.POSITIONS
}
_PHRASES = {
    "is to the left of": ("left of", False),
    "is to the right of": ("left of", True),
    "is above": ("above", False),
    "is below": ("above", True),
    "is inside": ("inside", False),
    "is in front of": ("in front of", False),
    "is behind": ("in front of", True),
    "is larger than": ("larger than", False),
    "is smaller than": ("larger than", True),
    "has the same colour as": ("same colour", False),
    "has the same shape as": ("same shape", False),
}
NOUN = rf"(?:(?:{'|'.join(_MEANING)}) )*(?:{'|'.join((*words.SHAPES, THING))})"
"""Regular expression for a noun with its adjectives."""

_LISTED = re.compile(rf"\ban? ({NOUN})\b")
_RELATED = re.compile(rf"the ({NOUN}) ({'|'.join(_PHRASES)}) the ({NOUN})")
_STANDS = re.compile(rf"an? ({NOUN}) is ({'|'.join(sorted(_AT.values(), key=len, reverse=True))})")
_GROUND = re.compile(rf"the background is ({'|'.join(words.BACKGROUNDS)})")
_WITH = re.compile(rf"(.+) with an? ({'|'.join(words.BACKGROUNDS)}) background")
_LIST = re.compile(rf"an? {NOUN}(?:, an? {NOUN})*(?: and an? {NOUN})?")


@dataclasses.dataclass(frozen=True)
class Mention:
    """What a caption says about one object; None where it says nothing.

    Attributes:
      shape, colour, size, texture, variant: words of ``vocabulary``.
      position: one of ``vocabulary.POSITIONS``.
    """

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    variant: str | None = None
    position: str | None = None

    def fits(self, thing: Object) -> bool:
        """Whether everything said is true of ``thing`` (already placed in view)."""
        pairs = (
            (self.shape, thing.shape),
            (self.colour, thing.colour),
            (self.size, thing.size_name),
            (self.texture, thing.texture),
            (self.variant, thing.variant),
            (self.position, thing.position),
        )
        return all(mentioned is None or mentioned == actual for mentioned, actual in pairs)


@dataclasses.dataclass(frozen=True)
class Relation:
    """``mentions[first]`` stands in relation ``name`` (one of ``RELATIONS``) to ``second``.

    Attributes:
      name: one of ``RELATIONS``.
      first, second: numbers of objects in the order of mention.
    """

    name: str
    first: int
    second: int


@dataclasses.dataclass(frozen=True)
class Parse:
    """The meaning of a caption: objects in the order of mention, relations, background.

    Attributes:
      mentions: of objects, in order.
      relations: between them.
      background: its kind; None where the caption says nothing of it.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[Relation, ...] = ()
    background: str | None = None


def describe(scene: Scene, detail: str = "short") -> Parse:
    """What a caption of ``detail`` says of ``scene``.

    ``short``: shape and colour of every object. ``medium``: also sizes, variants other than
    solid, textures other than plain, and the background. ``long``: every attribute, positions,
    and how each object stands to the subject where words can tell the two apart.

    Raises:
      ValueError: an unknown ``detail``, or a scene without objects.
    """
    check_one_of("detail", detail, DETAILS)
    if not scene.objects:
        raise ValueError("a scene without objects has no caption")
    placed = scene.placed()
    if detail == "short":
        return Parse(tuple(Mention(thing.shape, thing.colour) for thing in placed))
    if detail == "medium":
        mentions = tuple(
            Mention(
                thing.shape,
                thing.colour,
                thing.size_name,
                None if thing.texture == "plain" else thing.texture,
                None if thing.variant == "solid" else thing.variant,
            )
            for thing in placed
        )
        return Parse(mentions, (), scene.background.kind)
    mentions = tuple(
        Mention(t.shape, t.colour, t.size_name, t.texture, t.variant, t.position) for t in placed
    )
    rank = drawing_order(scene)
    relations = []
    for k in range(1, len(placed)):
        name, first, second = _standing(placed, k, (rank[k], rank[0]))
        if name and nickname(mentions, first) and nickname(mentions, second):
            relations.append(Relation(name, first, second))
    return Parse(mentions, tuple(relations), scene.background.kind)


def _standing(placed: tuple[Object, ...], k: int, order: tuple[int, int]) -> tuple[str, int, int]:
    """The most telling relation between object k and the subject; an empty name for none."""
    subject, other = placed[0], placed[k]
    if holds("inside", other, subject):
        return "inside", k, 0
    if holds("in front of", other, subject, order):
        return "in front of", k, 0
    side = "left of" if abs(other.x - subject.x) >= abs(other.y - subject.y) else "above"
    if holds(side, other, subject):
        return side, k, 0
    if holds(side, subject, other):
        return side, 0, k
    return "", k, 0


def full_mention(thing: Object) -> Mention:
    """Every word for ``thing`` but its position."""
    return Mention(thing.shape, thing.colour, thing.size_name, thing.texture, thing.variant)


def words_of(mention: Mention, fields: tuple[str, ...] = FIELDS) -> str:
    """The words for ``fields`` of a mention, the noun last: ``large red star``, ``red thing``."""
    values = [getattr(mention, field) for field in fields]
    return " ".join([word for word in values[:-1] if word] + [values[-1] or THING])


def nickname(mentions: Sequence[Mention], k: int) -> str:
    """The fewest words that fit mention k only; empty where it has a twin."""
    for fields in (("colour", "shape"), ("size", "colour", "shape"), FIELDS):
        name = words_of(mentions[k], fields)
        if sum(words_of(other, fields) == name for other in mentions) == 1:
            return name
    return ""


def with_article(noun: str) -> str:
    """``noun`` with a or an."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def write(meaning: Parse, template: int = 0) -> str:
    """``meaning`` in words; ``template`` (any number) chooses how the caption opens.

    Mentions with a position become one sentence each, otherwise all are listed in one.
    """
    opener = OPENERS[template % len(OPENERS)]
    nouns = [with_article(words_of(mention)) for mention in meaning.mentions]
    if any(mention.position for mention in meaning.mentions):
        sentences = [
            f"{noun} is {_AT[mention.position]}" if mention.position else f"there is {noun}"
            for noun, mention in zip(nouns, meaning.mentions, strict=True)
        ]
        if meaning.background:
            sentences.insert(
                0 if template % 2 else len(sentences), f"the background is {meaning.background}"
            )
    else:
        listed = " and ".join(filter(None, (", ".join(nouns[:-1]), nouns[-1])))
        tail = f" with {with_article(meaning.background)} background" if meaning.background else ""
        sentences = [f"{opener}{listed}{tail}"]
    for relation in meaning.relations:
        pair = [nickname(meaning.mentions, k) for k in (relation.first, relation.second)]
        if not all(pair):
            raise ValueError(f"{relation} concerns objects that the caption cannot tell apart")
        phrase = next(p for p, reading in _PHRASES.items() if reading == (relation.name, False))
        sentences.append(f"the {pair[0]} {phrase} the {pair[1]}")
    return ". ".join(sentences)


def caption(scene: Scene, detail: str = "short", template: int = 0) -> str:
    """A true caption of ``scene``, lower case; see ``describe`` and ``write``."""
    return write(describe(scene, detail), template)


def mention_of(noun: str, position: str | None = None) -> Mention:
    """The mention that adjectives and a noun make, as in ``small red star`` or ``red thing``."""
    fields = {_MEANING[word]: word for word in noun.split() if word != THING}
    return Mention(**fields, position=position)


def parse(text: str) -> Parse:
    """The meaning of a caption.

    Raises:
      ValueError: a sentence outside the grammar, or one about an object that was not introduced
        or cannot be told apart; the message quotes the sentence.
    """
    mentions: list[Mention] = []
    pending: list[tuple[str, str, str, str]] = []
    background = None
    for sentence in re.split(r"\.\s*", text.lower().strip()):
        if not sentence:
            continue
        if match := _GROUND.fullmatch(sentence):
            background = match[1]
        elif match := _RELATED.fullmatch(sentence):
            pending.append((sentence, match[1], match[2], match[3]))
        elif match := _STANDS.fullmatch(sentence):
            position = next(name for name, phrase in _AT.items() if phrase == match[2])
            mentions.append(mention_of(match[1], position))
        else:
            listing = sentence
            for opener in OPENERS[1:]:
                listing = listing.removeprefix(opener)
            if match := _WITH.fullmatch(listing):
                listing, background = match[1], match[2]
            if not _LIST.fullmatch(listing):
                raise ValueError(f"outside the grammar of captions: {sentence!r}")
            mentions += [mention_of(noun) for noun in _LISTED.findall(listing)]
    relations = []
    for sentence, first, phrase, second in pending:
        name, swapped = _PHRASES[phrase]
        a, b = (_resolve(mentions, noun, sentence) for noun in (first, second))
        relations.append(Relation(name, b, a) if swapped else Relation(name, a, b))
    return Parse(tuple(mentions), tuple(relations), background)


def _resolve(mentions: list[Mention], noun: str, sentence: str) -> int:
    fields = {_MEANING[word]: word for word in noun.split() if word != THING}
    fitting = [
        k
        for k, mention in enumerate(mentions)
        if all(getattr(mention, field) == word for field, word in fields.items())
    ]
    if len(fitting) != 1:
        raise ValueError(f"{noun!r} fits {len(fitting)} introduced objects: {sentence!r}")
    return fitting[0]


def agrees(meaning: Parse, scene: Scene) -> bool:
    """Whether ``meaning`` is true: every mention finds an object of its own, with all relations
    and the background as told. Objects that are not mentioned do not matter."""
    if meaning.background not in (None, scene.background.kind):
        return False
    placed, rank = scene.placed(), drawing_order(scene)
    chosen: list[int] = []

    def extend() -> bool:
        k = len(chosen)
        for relation in meaning.relations:
            if max(relation.first, relation.second) == k - 1:
                a, b = chosen[relation.first], chosen[relation.second]
                if not holds(relation.name, placed[a], placed[b], (rank[a], rank[b])):
                    return False
        if k == len(meaning.mentions):
            return True
        for candidate, thing in enumerate(placed):
            if candidate not in chosen and meaning.mentions[k].fits(thing):
                chosen.append(candidate)
                if extend():
                    return True
                chosen.pop()
        return False

    return extend()
