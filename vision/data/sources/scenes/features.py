"""The features that an example of scenes can have, by name: image, labels, masks, texts.

Every feature has a fixed shape for a given source, so that examples stack into batches (except
where pictures are asked for in several shapes): things that come per object are padded to
``max_objects`` rows, and ``valid`` says which rows are true.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.captions import caption
from vision.data.sources.scenes.drawn_features import Feature, padded, rendered
from vision.data.sources.scenes.graph import RELATIONS, relations
from vision.data.sources.scenes.labelled import LabelledScenes
from vision.data.sources.scenes.pen import MAX_POINTS
from vision.data.sources.scenes.record import Object, Scene
from vision.data.sources.scenes.renderer import Rendering, render

ATTRIBUTES = ("family", "shape", "variant", "colour", "texture", "size", "position")
"""Columns of the ``attributes`` feature."""

_CODES = (
    (words.FAMILIES, lambda thing: thing.family),
    (words.SHAPES, lambda thing: thing.shape),
    (words.VARIANTS, lambda thing: thing.variant),
    (words.COLOURS, lambda thing: thing.colour),
    (words.TEXTURES, lambda thing: thing.texture),
    (words.SIZES, lambda thing: thing.size_name),
    (words.POSITIONS, lambda thing: thing.position),
)


@dataclasses.dataclass(frozen=True)
class Example:
    """Scene ``index`` of ``source`` with whatever is made from it, each made once if asked.

    Attributes:
      source: the scenes.
      index: number of the scene.
    """

    source: LabelledScenes
    index: int

    @functools.cached_property
    def scene(self) -> Scene:
        return self.source.scene(self.index)

    @functools.cached_property
    def placed(self) -> tuple[Object, ...]:
        return self.scene.placed()

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        return self.source.shape_of(self.index)

    @functools.cached_property
    def rendering(self) -> Rendering:
        return render(self.scene, self.shape)

    @functools.cached_property
    def clean_label(self) -> int:
        return self.source.label_of(self.scene)

    @functools.cached_property
    def label(self) -> int:
        return self.source.noisy_label(self.index, self.clean_label)

    @functools.cached_property
    def captioned(self) -> Scene:
        return self.source.captioned(self.index, self.scene)

    def padded(self, rows: np.ndarray, fill: float = 0) -> np.ndarray:
        """``rows`` [K, ...] with rows of ``fill`` up to the source's ``max_objects``."""
        return padded(rows, self.source.max_objects, fill)


def hierarchy(thing: Object) -> np.ndarray:
    """Family, shape and leaf of ``thing`` as int32[3]: places in the vocabulary's tuples."""
    shape = words.SHAPES.index(thing.shape)
    leaf = shape * len(words.VARIANTS) + words.VARIANTS.index(thing.variant)
    return np.array((words.FAMILIES.index(thing.family), shape, leaf), np.int32)


def attributes(thing: Object) -> list[int]:
    """Places in the vocabulary's tuples, in the order of ``ATTRIBUTES``."""
    return [names.index(read(thing)) for names, read in _CODES]


def _attributes(example: Example) -> np.ndarray:
    rows = np.array([attributes(thing) for thing in example.placed], np.int32)
    return example.padded(rows, -1)


def _geometry(example: Example) -> np.ndarray:
    rows = [(t.y, t.x, t.size, t.rotation_deg) for t in example.placed]
    return example.padded(np.array(rows, np.float32))


def _relations(example: Example) -> np.ndarray:
    count, most = len(example.scene.objects), example.source.max_objects
    full = np.zeros((most, most, len(RELATIONS)), bool)
    full[:count, :count] = relations(example.scene)
    return full


def _segmentation(example: Example) -> np.ndarray:
    codes = [0, *(1 + words.SHAPES.index(thing.shape) for thing in example.scene.objects)]
    return np.array(codes, np.uint8)[example.rendering.instances]


def _glyph_mask(example: Example) -> np.ndarray:
    mask = example.rendering.glyph_mask
    return np.zeros(example.rendering.instances.shape, bool) if mask is None else mask


def _views(example: Example) -> np.ndarray:
    scenes = example.source.views(example.index, example.scene)
    return np.stack([render(scene, example.shape).image for scene in scenes])


def _valid(example: Example) -> np.ndarray:
    return np.arange(example.source.max_objects) < len(example.scene.objects)


def _hw(source: LabelledScenes) -> str:
    if not source.one_shape:
        return "h,w"
    height, width = source.image_shape
    return f"{height},{width}"


def _fixed(text: str) -> Callable[[LabelledScenes], str]:
    return lambda source: text.replace("{K}", str(source.max_objects)).replace("{HW}", _hw(source))


def _words(detail: str) -> Feature:
    return Feature(
        _fixed(f"string, {detail} caption in lower case"),
        lambda example: caption(
            example.captioned, detail, example.source.template_of(example.index)
        ),
    )


FEATURES: MappingProxyType[str, Feature] = MappingProxyType(
    {
        "image": Feature(_fixed("uint8[{HW},3], 0..255, RGB"), lambda e: e.rendering.image),
        "label": Feature(
            lambda source: f"int32, 0..{len(source.class_names) - 1}, {source.label}",
            lambda e: np.int32(e.label),
        ),
        "clean_label": Feature(
            lambda source: f"int32, 0..{len(source.class_names) - 1}, before label noise",
            lambda e: np.int32(e.clean_label),
        ),
        "votes": Feature(
            lambda source: f"int32[{source.num_raters}], the class that each rater sees",
            lambda e: e.source.votes(e.index, e.clean_label),
        ),
        "duplicate_of": Feature(
            _fixed("int32, the earlier example that this one nearly repeats, or -1"),
            lambda e: np.int32(e.source.duplicate_of(e.index)),
        ),
        "views": Feature(
            lambda source: f"uint8[{source.num_views},{_hw(source)},3], 0..255, other cameras",
            _views,
        ),
        "strokes": Feature(
            lambda source: (
                f"float32[{source.max_objects * MAX_POINTS},4]: y, x (shares of the image), pen "
                "stays down, object; -1 padded"
            ),
            lambda e: e.source.strokes(e.scene),
        ),
        "metadata": Feature(
            _fixed("float32[4], -1..1: latitude, longitude, sine and cosine of the season"),
            lambda e: e.source.metadata(e.index, e.clean_label),
        ),
        "time": Feature(
            _fixed("float32, 0..1, when the scene was seen; what ``drift`` goes by"),
            lambda e: np.float32(e.source.time_of(e.index)),
        ),
        "hierarchy": Feature(
            _fixed("int32[3]: family, shape and leaf of the subject"),
            lambda e: hierarchy(e.scene.subject),
        ),
        "background": Feature(
            _fixed(f"int32, 0..{len(words.BACKGROUNDS) - 1}"),
            lambda e: np.int32(words.BACKGROUNDS.index(e.scene.background.kind)),
        ),
        "style": Feature(
            _fixed(f"int32, 0..{len(words.STYLES) - 1}, rendering domain"),
            lambda e: np.int32(words.STYLES.index(e.scene.style)),
        ),
        "valid": Feature(_fixed("bool[{K}], which rows are objects"), _valid),
        "attributes": Feature(
            _fixed(f"int32[{{K}},{len(ATTRIBUTES)}], -1 padded: {', '.join(ATTRIBUTES)}"),
            _attributes,
        ),
        "geometry": Feature(
            _fixed("float32[{K},4]: centre y and x, radius (shares of the image), rotation_deg"),
            _geometry,
        ),
        **rendered(_fixed),
        "segmentation": Feature(
            _fixed(f"uint8[{{HW}}], 0 background, 1..{len(words.SHAPES)} shape"), _segmentation
        ),
        "relations": Feature(
            _fixed(f"bool[{{K}},{{K}},{len(RELATIONS)}]: {', '.join(RELATIONS)}"), _relations
        ),
        "glyph_mask": Feature(_fixed("bool[{HW}], the mark"), _glyph_mask),
        "caption_is_clean": Feature(
            _fixed("bool, captions are as they should be"),
            lambda e: np.bool_(e.captioned is e.scene),
        ),
        "caption": _words("short"),
        "caption_medium": _words("medium"),
        "caption_long": _words("long"),
    }
)
"""Every feature by name."""
