"""How scenes are drawn at random: the parameters of a world, and its scene number ``index``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from vision.config.ranges import (
    Fraction,
    Gt,
    Le,
    NonEmpty,
    NonNegative,
    Positive,
    PositiveRange,
    Rule,
    Unique,
    checked,
    one_of,
)
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import (
    between,
    choice,
    portion,
    shares,
    spread,
    turn,
    uniforms,
)
from vision.data.sources.scenes.labels import LABELS, SceneConstraint
from vision.data.sources.scenes.layout import (
    PER_OBJECT,
    Layout,
    companion,
    draw_clutter,
    draw_objects,
    possible_pairs,
)
from vision.data.sources.scenes.record import Artefact, Background, Glyph, Scene, View

_PER_SCENE = 20
_CUES = {
    "background": "backgrounds",
    "colour": "colours",
    "companion": "companions",
    "glyph": "glyphs",
}
_VOCABULARIES = {
    "shapes": words.SHAPES,
    "colours": words.COLOURS,
    "variants": words.VARIANTS,
    "textures": words.TEXTURES,
    "sizes": words.SIZES,
    "backgrounds": words.BACKGROUNDS,
    "styles": words.STYLES,
    "artefacts": words.ARTEFACTS,
}


Counts = Annotated[
    tuple[int, int],
    Rule("(fewest, most) with 1 <= fewest <= most <= 32", lambda n: 1 <= n[0] <= n[1] <= 32),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class World:
    """Everything that decides which scenes exist. Scene i is a pure function of the fields and i.

    Attributes:
      seed: chooses the world; unsigned 64-bit.
      split: name of an independent stream of scenes, such as ``train`` or ``test``.
      label: the attribute that is the class, one of ``labels.LABELS``. It concerns the subject
        (``objects[0]``, the largest unless the label is ``size``) where it concerns one object.
        Classes come in equal numbers, exactly in every aligned run of as many scenes as there
        are classes, unless ``imbalance`` is set.
      num_objects: fewest and most objects in a scene.
      shapes, colours, variants, textures, sizes, backgrounds, styles: allowed names, in label
        order.
      rotation_deg: objects are turned by at most this much to either side.
      overlap: how far objects may reach into one another, 0 (the circles around them stay apart
        while there is room) to 1 (anywhere).
      nested: share of the scenes with two or more objects in which the last one lies inside the
        subject, where the subject's shape has room.
      clutter: number of small unlabelled things beneath the objects.
      held_out: pairs of colour and shape in words, ``("red circle", ...)``; see ``pairs``.
      pairs: ``all``; ``seen``: no object has a held-out pair; ``unseen``: the subject has one.
      imbalance: ``none``, ``zipf`` (share of class c proportional to (c + 1)^-skew) or
        ``exponential`` (the last class is ``skew`` times rarer than the first).
      skew: strength of the imbalance.
      spurious: share of scenes whose cue is set by the class, 0 (independent) to 1; the others
        draw the cue uniformly, so that Cramer's V of class and cue is about ``spurious``.
      spurious_cue: ``background``; ``colour`` of the subject; ``companion``, one more object, a
        small outlined circle whose colour is the cue; ``glyph``, a small mark.
        Companions and glyphs are there even at strength 0.
      spurious_shift: class c goes with cue c + shift, so that a test world can use other pairs.
      num_identities: number of classes of ``label="identity"``: single things, each one
        combination of variant, texture, colour and shape, seen again and again.
      view_zoom: smallest and largest zoom of the camera.
      view_shift: the camera moves by at most this share of the image to any side.
      view_angle_deg: the camera turns by at most this much to either side.
      view_brightness: dimmest and brightest light.
      drift: 0 to 1; scenes are of a time in [0, 1) (``time_of``), and the camera of the last ones
        has ``drift / 2`` less light and is nearer by as much.
      glyph: whether scenes carry a glyph where neither label nor cue asks for one.
      glyph_size: side of the mark as a share of the short side.
      artefacts: traces that may be planted; with ``label="artefact"`` the classes are ``real``
        and these, with ``label="generator"`` real and every pair of a trace and a seed.
      artefact_seeds: the generators that leave traces; a fingerprint's pattern and the place of
        spectral peaks depend on it.
      artefact_rate: share of scenes with a trace, where the label does not decide it.
      artefact_strength: 0 to 1.

    Raises:
      ValueError: an argument outside its range; the message names it and the valid values.
    """

    seed: NonNegative[int] = 0
    split: str = "train"
    label: Annotated[str, one_of(LABELS)] = "shape"
    num_objects: Counts = (1, 3)
    shapes: Unique[NonEmpty[tuple[words.Shape, ...]]] = words.SHAPES
    colours: Unique[NonEmpty[tuple[words.Colour, ...]]] = words.COLOURS
    variants: Unique[NonEmpty[tuple[words.Variant, ...]]] = words.VARIANTS
    textures: Unique[NonEmpty[tuple[words.Texture, ...]]] = words.TEXTURES
    sizes: Unique[NonEmpty[tuple[words.Size, ...]]] = words.SIZES
    backgrounds: Unique[NonEmpty[tuple[words.BackgroundKind, ...]]] = words.BACKGROUNDS
    styles: Unique[NonEmpty[tuple[words.Style, ...]]] = ("clean",)
    rotation_deg: NonNegative[float] = 30.0
    overlap: Fraction = 0.0
    nested: Fraction = 0.0
    clutter: NonNegative[int] = 0
    held_out: tuple[str, ...] = ()
    pairs: Literal["all", "seen", "unseen"] = "all"
    imbalance: Literal["none", "zipf", "exponential"] = "none"
    skew: NonNegative[float] = 1.0
    spurious: Fraction = 0.0
    spurious_cue: Annotated[str, one_of(_CUES)] = "background"
    spurious_shift: int = 0
    num_identities: Positive[int] = 100
    view_zoom: PositiveRange = (1.0, 1.0)
    view_shift: NonNegative[float] = 0.0
    view_angle_deg: NonNegative[float] = 0.0
    view_brightness: PositiveRange = (1.0, 1.0)
    drift: Fraction = 0.0
    glyph: bool = False
    glyph_size: Annotated[float, Gt(0), Le(1)] = 0.1
    artefacts: Unique[tuple[words.ArtefactKind, ...]] = ()
    artefact_seeds: NonEmpty[tuple[int, ...]] = (0,)
    artefact_rate: Fraction = 0.5
    artefact_strength: Fraction = 0.5

    def __post_init__(self) -> None:
        if self.imbalance == "exponential" and self.skew < 1:
            raise ValueError(f"skew={self.skew!r} must be at least 1 where imbalance='exponential'")
        for pair in self.held_out:
            colour, _, shape = pair.partition(" ")
            if colour not in words.COLOURS or shape not in words.SHAPES:
                raise ValueError(f"held_out={pair!r}; write colour and shape, as in 'red circle'")
        if self.pairs != "all" and not self.held_out:
            raise ValueError(f"pairs={self.pairs!r} needs held_out pairs")
        if self.label in ("artefact", "generator") and not self.artefacts:
            raise ValueError(f"artefacts is empty; valid values: {', '.join(words.ARTEFACTS)}")
        clash = {"background": ("background",), "colour": ("colour", "shape_colour", "identity")}
        clash |= {"companion": ("count",), "glyph": ("glyph",)}
        if self.cued and self.label in clash[self.spurious_cue]:
            raise ValueError(
                f"spurious_cue={self.spurious_cue!r} would decide label={self.label!r}"
            )
        if not self.drawable_classes:
            raise ValueError(f"held_out with pairs={self.pairs!r} leaves no scene to draw")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return LABELS[self.label].names(self._free)

    @functools.cached_property
    def _free(self) -> SceneConstraint:
        """What this world allows before a class is chosen."""
        return SceneConstraint(
            **{field: getattr(self, field) for field in _VOCABULARIES if field != "artefacts"},
            num_objects=self.num_objects,
            num_identities=self.num_identities,
            glyphs=tuple(range(len(words.GLYPHS))) if self.glyph else (),
            artefacts=tuple((kind, n) for kind in self.artefacts for n in self.artefact_seeds),
        )

    @functools.cached_property
    def _class_constraints(self) -> tuple[SceneConstraint, ...]:
        """What may be drawn for every class."""
        return tuple(LABELS[self.label].narrow(self._free, name) for name in self.class_names)

    @functools.cached_property
    def drawable_classes(self) -> tuple[int, ...]:
        """Classes that have scenes; fewer than all only where held-out pairs exclude some."""
        return tuple(
            c
            for c, aim in enumerate(self._class_constraints)
            if possible_pairs(aim.shapes, aim.colours, self.held_out, self.pairs)
        )

    @functools.cached_property
    def class_shares(self) -> tuple[float, ...]:
        """Expected share of every class of ``class_names``; sums to 1."""
        return shares(len(self.class_names), self.drawable_classes, self.imbalance, self.skew)

    @property
    def max_objects(self) -> int:
        """Most objects that a scene of this world can have."""
        return self.num_objects[1] + (self.spurious_cue == "companion")

    def class_of(self, index: int) -> int:
        """Class that scene ``index`` is drawn for; a moving camera may show another size or
        quadrant, and the label says what it shows."""
        stream = f"{self.split}/class"
        if self.imbalance == "none":
            count = len(self.drawable_classes)
            offset, step = turn(self.seed, stream, index // count, count)
            return self.drawable_classes[(offset + step * (index % count)) % count]
        return portion(self.class_shares, spread(self.seed, stream, index))

    def uniforms(self, index: int, purpose: str, count: int) -> list[float]:
        """``count`` uniform numbers of this world for scene ``index``, by purpose."""
        if not count:
            return []
        return uniforms(self.seed, self.split, index, purpose, count).tolist()

    def cue_of(self, index: int) -> int | None:
        """Which value the spurious cue of scene ``index`` takes; None in a world without."""
        if not self.cued:
            return None
        count = len(self._cue_values)
        u = self.uniforms(index, "cue", 2)
        if u[0] < self.spurious:
            return (self.class_of(index) + self.spurious_shift) % count
        return int(u[1] * count)

    @property
    def cued(self) -> bool:
        """Whether scenes have a cue: companions and marks are there at strength 0 too."""
        return self.spurious > 0 or self.spurious_cue in ("companion", "glyph")

    @functools.cached_property
    def _cue_values(self) -> tuple[Any, ...]:
        if self.spurious_cue == "glyph":
            return tuple(range(len(words.GLYPHS)))
        return self.backgrounds if self.spurious_cue == "background" else self.colours

    def draw_view(self, u: Sequence[float]) -> View:
        """A camera within this world's limits, from five uniform numbers."""
        shift, angle = (-self.view_shift, self.view_shift), self.view_angle_deg
        return View(
            between(self.view_zoom, u[0]),
            between(shift, u[1]),
            between(shift, u[2]),
            between((-angle, angle), u[3]),
            between(self.view_brightness, u[4]),
        )

    def time_of(self, index: int) -> float:
        """When scene ``index`` was seen, in [0, 1); neighbours in number are not in time."""
        return self.uniforms(index, "time", 1)[0]

    def _aged(self, view: View, index: int) -> View:
        if not self.drift:
            return view
        change = 0.5 * self.drift * self.time_of(index)
        return dataclasses.replace(
            view, zoom=view.zoom * (1 + change), brightness=view.brightness * (1 - change)
        )

    def scene(self, index: int) -> Scene:
        """Scene ``index``; any non-negative number."""
        aim = self._class_constraints[self.class_of(index)]
        cue = self.cue_of(index)
        if cue is not None:
            values = (self._cue_values[cue],)
            aim = dataclasses.replace(aim, **{_CUES[self.spurious_cue]: values})
        u = self.uniforms(index, "scene", _PER_SCENE + PER_OBJECT * self.num_objects[1])
        background = Background(
            choice(aim.backgrounds, u[0]), u[1], u[2], between((0.88, 1.06), u[3])
        )
        low, high = aim.num_objects
        objects = draw_objects(
            aim,
            self._free,
            low + int(u[4] * (high - low + 1)),
            u[_PER_SCENE:],
            Layout(
                pairs=self.pairs,
                held_out=self.held_out,
                rotation_deg=self.rotation_deg,
                overlap=self.overlap,
                nested=u[5] < self.nested,
                free_sizes=self.label == "size",
            ),
        )
        if aim.companions:
            places = self.uniforms(index, "companion", PER_OBJECT)
            objects = (*objects, companion(aim.companions[0], objects, places))
        glyph = None
        if aim.glyphs:
            half = self.glyph_size / 2
            y, x = (between((half, 1 - half), number) for number in u[7:9])
            glyph = Glyph(choice(aim.glyphs, u[6]), y, x, self.glyph_size)
        artefact = None
        if aim.artefacts and (self.label in ("artefact", "generator") or u[9] < self.artefact_rate):
            kind, seed = choice(aim.artefacts, u[10])
            artefact = Artefact(kind, self.artefact_strength, seed)
        return Scene(
            objects,
            background,
            self._aged(self.draw_view(u[13:18]), index),
            clutter=draw_clutter(self.uniforms(index, "clutter", 6 * self.clutter)),
            glyph=glyph,
            style=choice(aim.styles, u[11]),
            style_seed=int(u[12] * 2**31),
            artefact=artefact,
        )
