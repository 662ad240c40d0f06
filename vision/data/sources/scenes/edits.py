"""Edits of a scene and their words: remove, add, move, change an attribute, change the ground.

An ``Edit`` is applied to the record, so the picture of the result is exact. ``clauses`` describes
edits by the attributes of the objects, ``write_modifier`` and ``read_modifier`` turn them into
words and back ("make the red circle blue and remove the green star").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any

from vision.config.ranges import checked, one_of
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.captions import (
    NOUN,
    Mention,
    full_mention,
    mention_of,
    nickname,
    with_article,
    words_of,
)
from vision.data.sources.scenes.record import Object, Scene, View, out_of_view
from vision.data.sources.scenes.vocabulary import check_one_of

EDITS = (
    *("remove", "add", "move", "background"),
    *("colour", "shape", "size", "texture", "variant"),
)
"""Kinds of edit; the last five set an attribute of one object."""

VALUES = {
    "colour": words.COLOURS,
    "shape": words.SHAPES,
    "size": words.SIZES,
    "texture": words.TEXTURES,
    "variant": words.VARIANTS,
    "move": words.POSITIONS,
    "background": words.BACKGROUNDS,
}
"""What ``Edit.value`` can be for the kinds that have one."""

_WORD_KIND = {
    word: kind for kind in ("colour", "size", "texture", "variant") for word in VALUES[kind]
}


@dataclasses.dataclass(frozen=True)
@checked
class Edit:
    """One change of a scene.

    Attributes:
      kind: one of ``EDITS``.
      index: which object; None for ``add`` and ``background``.
      value: the new attribute, position or background, one of ``VALUES[kind]``.
      addition: the object that ``add`` brings.
    """

    kind: Annotated[str, one_of(EDITS)]
    index: int | None = None
    value: str | None = None
    addition: Object | None = None

    def __post_init__(self) -> None:
        if self.kind in VALUES:
            check_one_of("value", self.value, VALUES[self.kind])
        if (self.index is None) != (self.kind in ("add", "background")):
            raise ValueError(f"index={self.index!r} does not go with kind={self.kind!r}")
        if (self.addition is None) == (self.kind == "add"):
            raise ValueError(f"addition={self.addition!r} does not go with kind={self.kind!r}")


@dataclasses.dataclass(frozen=True)
class Clause:
    """One change as a text describes it.

    ``target`` describes the object that is changed; ``value`` is None where the text leaves it
    open ("change the colour of the red circle"); ``addition`` describes what ``add`` brings.

    Attributes:
      kind: one of ``EDITS``.
      target: the object that is changed; None where there is none, or the text does not say.
      value: what it is changed to.
      addition: what ``add`` brings.
    """

    kind: str
    target: Mention | None = None
    value: str | None = None
    addition: Mention | None = None


def remove(scene: Scene, k: int) -> Scene:
    """``scene`` without ``objects[k]``."""
    return dataclasses.replace(scene, objects=scene.objects[:k] + scene.objects[k + 1 :])


def change(scene: Scene, k: int, **fields: Any) -> Scene:
    """``scene`` with fields of ``objects[k]`` replaced: ``change(scene, 0, colour="red")``."""
    thing = dataclasses.replace(scene.objects[k], **fields)
    return dataclasses.replace(scene, objects=(*scene.objects[:k], thing, *scene.objects[k + 1 :]))


def add(scene: Scene, thing: Object) -> Scene:
    """``scene`` with one more object, the last."""
    return dataclasses.replace(scene, objects=(*scene.objects, thing))


def replace_background(scene: Scene, kind: str) -> Scene:
    """``scene`` on another ground, equally light."""
    return dataclasses.replace(scene, background=dataclasses.replace(scene.background, kind=kind))


def cell_centre(position: str) -> tuple[float, float]:
    """Centre (y, x) of a cell of the 3x3 grid by its name in ``vocabulary.POSITIONS``."""
    check_one_of("position", position, words.POSITIONS)
    row, column = divmod(words.POSITIONS.index(position), 3)
    return (0.22, 0.5, 0.78)[row], (0.22, 0.5, 0.78)[column]


def apply(scene: Scene, *edits: Edit) -> Scene:
    """``scene`` after ``edits``, all of which count objects as ``scene`` does.

    Raises:
      ValueError: an index that the scene does not have, or two edits that change the same thing.
    """
    places = [(edit.kind, edit.index) for edit in edits if edit.kind != "add"]
    removed = {edit.index for edit in edits if edit.kind == "remove"}
    if len(set(places)) < len(places) or any(
        k in removed for kind, k in places if kind != "remove"
    ):
        raise ValueError(f"edits change the same thing twice: {edits}")
    for _, k in places:
        if k is not None and not 0 <= k < len(scene.objects):
            raise ValueError(f"index={k}: the scene has objects 0..{len(scene.objects) - 1}")
    result = scene
    for edit in edits:
        if edit.index is not None and edit.kind != "remove":
            result = change(result, edit.index, **_fields(edit, scene.view))
        elif edit.kind == "background":
            result = replace_background(result, edit.value or "")
    for k in sorted((k for k in removed if k is not None), reverse=True):
        result = remove(result, k)
    for edit in edits:
        if edit.addition is not None:
            result = add(result, edit.addition)
    return result


def _fields(edit: Edit, view: View) -> dict[str, Any]:
    """New values of an object's fields; places and sizes are meant as the camera sees them."""
    value = edit.value or ""
    if edit.kind == "move":
        y, x = out_of_view(*cell_centre(value), view)
        return {"y": y, "x": x}
    if edit.kind == "size":
        return {"size": sum(words.SIZE_RANGES[value]) / 2 / view.zoom}
    return {edit.kind: value}


def target_name(scene: Scene, k: int) -> str:
    """Fewest words that fit ``objects[k]`` only; empty where it has a twin."""
    return nickname([full_mention(thing) for thing in scene.placed()], k)


def clauses(scene: Scene, edits: Sequence[Edit], vague: bool = False) -> tuple[Clause, ...]:
    """``edits`` of ``scene`` as a text describes them; ``vague`` leaves out the new values.

    Raises:
      ValueError: an object that words cannot tell from another one.
    """
    result = []
    for edit in edits:
        target = addition = None
        if edit.index is not None:
            name = target_name(scene, edit.index)
            if not name:
                raise ValueError(f"words cannot tell object {edit.index} from another one")
            target = mention_of(name)
        if edit.addition is not None:
            addition = mention_of(words_of(full_mention(edit.addition)))
        result.append(Clause(edit.kind, target, None if vague else edit.value, addition))
    return tuple(result)


def ground(clauses: Sequence[Clause], scene: Scene) -> tuple[Edit, ...]:
    """The edits of ``scene`` that clauses describe; the inverse of ``clauses``.

    Raises:
      ValueError: a target that fits no object or several, a clause without its value, or an
        addition (a text does not say where it goes).
    """
    edits, placed = [], scene.placed()
    for clause in clauses:
        if clause.kind == "add":
            raise ValueError("an addition has no position in a text; make the Edit yourself")
        k = None
        if clause.target is not None:
            fitting = [k for k, thing in enumerate(placed) if clause.target.fits(thing)]
            if len(fitting) != 1:
                raise ValueError(f"target={clause.target} fits {len(fitting)} objects of the scene")
            k = fitting[0]
        edits.append(Edit(clause.kind, k, clause.value))
    return tuple(edits)


def write_modifier(clauses: Sequence[Clause]) -> str:
    """Clauses in words, joined by "and"."""
    return " and ".join(_write(clause) for clause in clauses)


def _write(clause: Clause) -> str:
    name = words_of(clause.target) if clause.target else ""
    if clause.kind == "remove":
        return f"remove the {name}"
    if clause.addition is not None:
        return f"add {with_article(words_of(clause.addition))}"
    if clause.value is None:
        if clause.kind == "background":
            return "change the background"
        return f"change the {'position' if clause.kind == 'move' else clause.kind} of the {name}"
    if clause.kind == "background":
        return f"change the background to {clause.value}"
    if clause.kind == "move":
        return f"move the {name} to the {clause.value}"
    if clause.kind == "shape":
        return f"turn the {name} into {with_article(clause.value)}"
    return f"make the {name} {clause.value}"


_READERS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(remove) the ({NOUN})",
        rf"(add) an? ({NOUN})",
        r"(change) the background(?: to (\w+))?",
        rf"(change) the (position|colour|shape|size|texture|variant) of the ({NOUN})",
        rf"(move) the ({NOUN}) to the ([a-z ]+)",
        rf"(turn) the ({NOUN}) into an? (\w+)",
        rf"(make) the ({NOUN}) (\w+)",
    )
)


def read_modifier(text: str) -> tuple[Clause, ...]:
    """The clauses that ``text`` is made of; the reverse of ``write_modifier``.

    Raises:
      ValueError: a part outside the grammar; the message quotes it.
    """
    return tuple(_read(part) for part in text.lower().strip(" .").split(" and "))


def _read(part: str) -> Clause:
    for reader, pattern in enumerate(_READERS):
        match = pattern.fullmatch(part)
        if match is None:
            continue
        if reader == 0:
            return Clause("remove", mention_of(match[2]))
        if reader == 1:
            return Clause("add", addition=mention_of(match[2]))
        if reader == 2 and (match[2] is None or match[2] in words.BACKGROUNDS):
            return Clause("background", value=match[2])
        if reader == 3:
            kind = "move" if match[2] == "position" else match[2]
            return Clause(kind, mention_of(match[3]))
        kind = {4: "move", 5: "shape"}.get(reader) or _WORD_KIND.get(match[3])
        if reader > 3 and kind and match[3] in VALUES[kind]:
            return Clause(kind, mention_of(match[2]), match[3])
    raise ValueError(f"outside the grammar of modifiers: {part!r}")
