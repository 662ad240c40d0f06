"""The labels of scenes: for every label its class names, the constraint that makes a scene of a
class, and how the class is read from the record.

A label is always read from the record, so that it stays true after an edit. Size and quadrant
are read as the camera sees them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import MappingProxyType

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import turn
from vision.data.sources.scenes.record import Object, Scene, in_view
from vision.data.sources.scenes.vocabulary import check_one_of

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SceneConstraint:
    """What may be drawn. ``shapes`` to ``sizes`` and ``quadrants`` hold for the subject only.

    ``quadrants``, ``glyphs``, ``artefacts`` (kind and seed) and ``companions`` (colours) are the
    alternatives to draw from; empty means anywhere, no glyph, no artefact and no companion.

    Attributes:
      shapes, colours, variants, textures, sizes: words that the subject may have.
      num_objects: fewest and most objects.
      quadrants: where the subject may lie.
      backgrounds, styles: kinds.
      glyphs: indices into ``vocabulary.GLYPHS``.
      artefacts: kind and seed.
      companions: colours.
      num_identities: how many identities there are.
    """

    shapes: Names = words.SHAPES
    colours: Names = words.COLOURS
    variants: Names = words.VARIANTS
    textures: Names = words.TEXTURES
    sizes: Names = words.SIZES
    num_objects: tuple[int, int] = (1, 3)
    quadrants: Names = ()
    backgrounds: Names = words.BACKGROUNDS
    styles: Names = ("clean",)
    glyphs: tuple[int, ...] = ()
    artefacts: tuple[tuple[str, int], ...] = ()
    companions: Names = ()
    num_identities: int = 100


@dataclasses.dataclass(frozen=True)
class Label:
    """A label: its classes in a world, the constraint for a class, the class of a scene.

    Attributes:
      names: the classes, given what a world allows.
      narrow: from a constraint and a class name to the constraint for scenes of that class.
      read: the class name that is true of a scene.
    """

    names: Callable[[SceneConstraint], Names]
    narrow: Callable[[SceneConstraint, str], SceneConstraint]
    read: Callable[[Scene], str]


def _plain(field: str, read: Callable[[Scene], str]) -> Label:
    """A label whose classes are the allowed values of one field of the constraint."""
    return Label(
        lambda free: getattr(free, field),
        lambda free, name: dataclasses.replace(free, **{field: (name,)}),
        read,
    )


def _families(free: SceneConstraint) -> Names:
    present = {words.FAMILY_OF[shape] for shape in free.shapes}
    return tuple(family for family in words.FAMILIES if family in present)


def _of_family(free: SceneConstraint, name: str) -> SceneConstraint:
    shapes = tuple(shape for shape in free.shapes if words.FAMILY_OF[shape] == name)
    return dataclasses.replace(free, shapes=shapes)


def _leaf(free: SceneConstraint, name: str) -> SceneConstraint:
    variant, shape = name.split()
    return dataclasses.replace(free, variants=(variant,), shapes=(shape,))


def _pair(free: SceneConstraint, name: str) -> SceneConstraint:
    colour, shape = name.split()
    return dataclasses.replace(free, colours=(colour,), shapes=(shape,))


def _identities(free: SceneConstraint) -> Names:
    parts = (free.variants, free.textures, free.colours, free.shapes)
    total = math.prod(map(len, parts))
    offset, step = turn(0, "identity", 0, total)
    chosen = []
    for k in range(min(free.num_identities, total)):
        number, name = (offset + step * k) % total, []
        for names in parts:
            number, position = divmod(number, len(names))
            name.append(names[position])
        chosen.append(" ".join(name))
    return tuple(chosen)


def _identity(free: SceneConstraint, name: str) -> SceneConstraint:
    variant, texture, colour, shape = name.split()
    return dataclasses.replace(
        free, variants=(variant,), textures=(texture,), colours=(colour,), shapes=(shape,)
    )


def _subject_in_view(scene: Scene) -> Object:
    return in_view(scene.subject, scene.view)


def _read_identity(scene: Scene) -> str:
    thing = scene.subject
    return f"{thing.variant} {thing.texture} {thing.colour} {thing.shape}"


def _count(free: SceneConstraint, name: str) -> SceneConstraint:
    return dataclasses.replace(free, num_objects=(int(name), int(name)))


def _glyph(free: SceneConstraint, name: str) -> SceneConstraint:
    return dataclasses.replace(free, glyphs=(int(name.removeprefix("glyph ")),))


def _artefact(free: SceneConstraint, name: str) -> SceneConstraint:
    artefacts = tuple(trace for trace in free.artefacts if trace[0] == name)
    return dataclasses.replace(free, artefacts=artefacts)


def _generator(free: SceneConstraint, name: str) -> SceneConstraint:
    artefacts = tuple(trace for trace in free.artefacts if name == f"{trace[0]} {trace[1]}")
    return dataclasses.replace(free, artefacts=artefacts)


def _read_generator(scene: Scene) -> str:
    trace = scene.artefact
    return "real" if trace is None else f"{trace.kind} {trace.seed}"


LABELS: MappingProxyType[str, Label] = MappingProxyType(
    {
        "shape": _plain("shapes", lambda scene: scene.subject.shape),
        "family": Label(_families, _of_family, lambda scene: scene.subject.family),
        "variant": _plain("variants", lambda scene: scene.subject.variant),
        "leaf": Label(
            lambda free: tuple(f"{v} {s}" for s in free.shapes for v in free.variants),
            _leaf,
            lambda scene: scene.subject.leaf,
        ),
        "colour": _plain("colours", lambda scene: scene.subject.colour),
        "texture": _plain("textures", lambda scene: scene.subject.texture),
        "size": _plain("sizes", lambda scene: _subject_in_view(scene).size_name),
        "shape_colour": Label(
            lambda free: tuple(f"{c} {s}" for s in free.shapes for c in free.colours),
            _pair,
            lambda scene: f"{scene.subject.colour} {scene.subject.shape}",
        ),
        "identity": Label(_identities, _identity, _read_identity),
        "count": Label(
            lambda free: tuple(str(n) for n in range(free.num_objects[0], free.num_objects[1] + 1)),
            _count,
            lambda scene: str(len(scene.objects)),
        ),
        "quadrant": Label(
            lambda free: words.QUADRANTS,
            lambda free, name: dataclasses.replace(free, quadrants=(name,)),
            lambda scene: _subject_in_view(scene).quadrant,
        ),
        "background": _plain("backgrounds", lambda scene: scene.background.kind),
        "style": _plain("styles", lambda scene: scene.style),
        "glyph": Label(
            lambda free: tuple(f"glyph {k}" for k in range(len(words.GLYPHS))),
            _glyph,
            lambda scene: "no glyph" if scene.glyph is None else f"glyph {scene.glyph.pattern}",
        ),
        "artefact": Label(
            lambda free: ("real", *dict.fromkeys(kind for kind, _ in free.artefacts)),
            _artefact,
            lambda scene: "real" if scene.artefact is None else scene.artefact.kind,
        ),
        "generator": Label(
            lambda free: ("real", *(f"{kind} {seed}" for kind, seed in free.artefacts)),
            _generator,
            _read_generator,
        ),
    }
)
"""Every label by name. An ``identity`` is one combination of variant, texture, colour and shape.
``artefact`` and ``generator`` have the class ``real`` before the others."""


def read_label(scene: Scene, label: str) -> str:
    """The class name of ``scene``; ``ValueError`` for an unknown label."""
    check_one_of("label", label, tuple(LABELS))
    return LABELS[label].read(scene)
