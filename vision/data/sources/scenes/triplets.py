"""Composed retrieval: a reference scene, a text that changes it, the target, and distractors.

Neither the reference nor the text alone gives the target away: some distractors share the
reference and differ in the change, others share the change and differ in the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np

from vision.config.ranges import Fraction, NonEmpty, Positive, checked, one_of
from vision.data.source import SourceInfo
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import between, choice
from vision.data.sources.scenes.edits import (
    EDITS,
    VALUES,
    Clause,
    Edit,
    apply,
    cell_centre,
    clauses,
    target_name,
    write_modifier,
)
from vision.data.sources.scenes.layout import find_place, possible_pairs
from vision.data.sources.scenes.reader import CARD, SceneReader
from vision.data.sources.scenes.record import Object, Scene
from vision.data.sources.scenes.renderer import render
from vision.data.sources.scenes.world import Counts, World

DISTRACTORS = ("reference", "other edit", "other scene", "random")
"""Kinds of distractor: the reference unchanged; the reference with another edit; another scene
with the same change; any scene."""

_TRIES = 64
_FAR = 2**40


@dataclasses.dataclass(frozen=True)
class Triplet:
    """One query of composed retrieval with its gallery.

    Attributes:
      reference, target: before and after.
      edits: the changes, counting objects as in ``reference``.
      clauses: what ``modifier`` says of them (the gold parse).
      modifier: the text.
      distractors: scenes that are not the target; none equals it.
      kinds: for every distractor, which of ``DISTRACTORS`` it is.
    """

    reference: Scene
    target: Scene
    edits: tuple[Edit, ...]
    clauses: tuple[Clause, ...]
    modifier: str
    distractors: tuple[Scene, ...]
    kinds: tuple[str, ...]


def draw_edits(
    world: World, scene: Scene, count: int, kinds: tuple[str, ...], u: Iterator[float]
) -> tuple[Edit, ...]:
    """Up to ``count`` random edits of ``scene``, each of another object, that words can tell.

    Fewer come back where the scene has not enough objects of its own name. New attributes keep
    to what ``world`` allows. ``u`` is read 24 numbers per attempt, at most ``8 * count`` times.
    """
    edits: list[Edit] = []
    free = [k for k in range(len(scene.objects)) if target_name(scene, k)]
    remaining = len(scene.objects)
    for _ in range(8 * count):
        if len(edits) == count:
            break
        draws = [next(u) for _ in range(24)]
        kind = choice(kinds, draws[0])
        if kind == "add":
            if all(edit.kind != "add" for edit in edits):
                edits.append(Edit("add", addition=newcomer(world, scene, draws)))
        elif kind == "background":
            others = [
                kind_name for kind_name in world.backgrounds if kind_name != scene.background.kind
            ]
            if others and all(edit.kind != "background" for edit in edits):
                edits.append(Edit("background", None, choice(others, draws[1])))
        elif free and (kind != "remove" or remaining > 1):
            k = choice(free, draws[1])
            values = _other_values(world, scene, k, kind)
            if kind == "remove" or values:
                edits.append(Edit(kind, k, choice(values, draws[2]) if values else None))
                free.remove(k)
                remaining -= kind == "remove"
    return tuple(edits)


def _other_values(world: World, scene: Scene, k: int, kind: str) -> list[str]:
    """New values that ``kind`` may give object k; empty where there are none."""
    thing = scene.objects[k]
    if kind == "remove":
        return []
    if kind == "move":
        now = scene.placed()[k].position
        return [name for name in words.POSITIONS if name != now and _is_free(scene, k, name)]
    now = thing.size_name if kind == "size" else getattr(thing, kind)
    values = [name for name in getattr(world, f"{kind}s") if name != now]
    if kind in ("colour", "shape") and world.pairs == "seen":
        changed = [dataclasses.replace(thing, **{kind: name}) for name in values]
        values = [
            name
            for name, new in zip(values, changed, strict=True)
            if possible_pairs((new.shape,), (new.colour,), world.held_out, "seen")
        ]
    return values


def _is_free(scene: Scene, k: int, position: str) -> bool:
    y, x = cell_centre(position)
    size = scene.objects[k].size
    return all(
        (y - o.y) ** 2 + (x - o.x) ** 2 >= (size + o.size) ** 2
        for j, o in enumerate(scene.objects)
        if j != k
    )


def newcomer(world: World, scene: Scene, u: Sequence[float]) -> Object:
    """A small object that ``world`` allows, where ``scene`` has room; ``u``: 24 numbers."""
    pairs = possible_pairs(
        world.shapes, world.colours, world.held_out, "seen" if world.pairs == "seen" else "all"
    )
    shape, colours = choice(pairs, u[1])
    size = between(words.SIZE_RANGES["small"], u[2])
    y, x = find_place(size, scene.objects, u[4:], 0.0, "")
    return Object(shape, choice(colours, u[3]), size=size, y=y, x=x, layer=9)


def triplet(
    world: World,
    index: int,
    num_edits: int = 1,
    num_distractors: int = 4,
    kinds: tuple[str, ...] = EDITS,
    distractors: tuple[str, ...] = DISTRACTORS,
    vague: float = 0.0,
) -> Triplet:
    """Triplet ``index`` of ``world``: a pure function of the arguments.

    Args:
      num_edits: changes of different objects, all told in one text.
      num_distractors: other scenes in the gallery.
      kinds: allowed kinds of edit.
      distractors: kinds of distractor: the reference first, once, then the others in turn.
      vague: share of texts that leave the new values open, so that several scenes would do.

    Raises:
      ValueError: a world whose scenes do not allow such edits.
    """
    for attempt in range(_TRIES):
        at = index + attempt * _FAR
        reference = world.scene(at)
        u = iter(world.uniforms(at, "triplet", 24 * 8 * num_edits + 1))
        open_values = next(u) < vague
        edits = draw_edits(world, reference, num_edits, kinds, u)
        if len(edits) == num_edits:
            break
    else:
        raise ValueError(
            f"no scene of {_TRIES} allows num_edits={num_edits} of kinds={kinds}; "
            "raise num_objects or allow other kinds"
        )
    target = apply(reference, *edits)
    said_clauses = clauses(reference, edits, open_values)
    others: list[Scene] = []
    names: list[str] = []
    order = [kind for kind in distractors if kind != "reference"] or ["random"]
    for slot in range(num_distractors):
        first = slot == 0 and "reference" in distractors
        kind = "reference" if first else order[slot % len(order)]
        for attempt in range(_TRIES):
            numbers = world.uniforms(at, f"distractor/{slot}/{attempt}", 24 * 8 * num_edits + 1)
            scene = _distractor(world, kind, reference, edits, kinds, iter(numbers))
            if scene != target and scene not in others:
                others.append(scene)
                names.append(kind)
                break
    if len(others) < num_distractors:
        raise ValueError(
            f"num_distractors={num_distractors}: this world has only {len(others)} of the kinds "
            f"{distractors} beside the target"
        )
    return Triplet(
        reference,
        target,
        edits,
        said_clauses,
        write_modifier(said_clauses),
        tuple(others),
        tuple(names),
    )


def _distractor(
    world: World,
    kind: str,
    reference: Scene,
    edits: tuple[Edit, ...],
    kinds: tuple[str, ...],
    u: Iterator[float],
) -> Scene:
    if kind == "reference":
        return reference
    if kind == "other edit":
        return apply(reference, *draw_edits(world, reference, len(edits), kinds, u))
    other = world.scene(int(next(u) * _FAR) + _FAR * _TRIES)
    if kind == "random":
        return other
    for position, edit in enumerate(edits):
        if edit.kind == "remove":
            continue
        k = None if edit.index is None else min(position, len(other.objects) - 1)
        other = apply(other, dataclasses.replace(edit, index=k))
    return other


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class Triplets(SceneReader):
    """Triplets as a source. An example holds ``reference`` and ``target`` uint8[H, W, 3],
    ``distractors`` uint8[D, H, W, 3], ``modifier`` (text) and ``vague`` (bool).

    The fields are those of ``World``, ``SceneReader`` and ``triplet``.

    Attributes:
      num_edits: changes of a triplet, at least 1.
      num_distractors: D, at least 1.
      kinds: of edit that are drawn.
      distractors: kinds that are drawn.
      vague: share of modifiers that leave the new value open.
      num_objects: fewest and most of a reference scene.
    """

    num_edits: Positive[int] = 1
    num_distractors: Positive[int] = 4
    kinds: NonEmpty[tuple[Annotated[str, one_of(EDITS)], ...]] = EDITS
    distractors: NonEmpty[tuple[Annotated[str, one_of(DISTRACTORS)], ...]] = DISTRACTORS
    vague: Fraction = 0.0
    num_objects: Counts = (2, 3)

    @property
    def info(self) -> SourceInfo:
        height, width = self.image_shape
        image = f"uint8[{height},{width},3], 0..255"
        return SourceInfo(
            "triplets",
            self.num_examples,
            (),
            {
                "reference": image,
                "target": image,
                "distractors": f"uint8[{self.num_distractors},{height},{width},3], 0..255",
                "modifier": "string, what to change",
                "vague": "bool, the text leaves the new values open",
            },
            **CARD,
        )

    def triplet(self, index: int) -> Triplet:
        """Record ``index``, before it is drawn."""
        return triplet(
            self,
            self.checked(index),
            self.num_edits,
            self.num_distractors,
            self.kinds,
            self.distractors,
            self.vague,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.triplet(index)
        return {
            "reference": render(record.reference, self.image_size).image,
            "target": render(record.target, self.image_size).image,
            "distractors": np.stack([render(s, self.image_size).image for s in record.distractors]),
            "modifier": record.modifier,
            "vague": np.bool_(any(c.kind in VALUES and c.value is None for c in record.clauses)),
        }
