"""Procedural scenes: one record, one renderer, many readers.

A ``Scene`` is a frozen record; ``render`` draws it; labels, masks, boxes, relations and captions
are read from it; an edit is ``dataclasses.replace``. ``World`` draws scenes at random and
``Scenes`` is the data source over a world.
"""

from vision.data.sources.scenes.captions import (
    DETAILS,
    Mention,
    Parse,
    Relation,
    agrees,
    caption,
    describe,
    parse,
    write,
)
from vision.data.sources.scenes.clips import MOTIONS, Clips, clip, film
from vision.data.sources.scenes.edits import (
    EDITS,
    Clause,
    Edit,
    add,
    apply,
    change,
    clauses,
    ground,
    read_modifier,
    remove,
    replace_background,
    write_modifier,
)
from vision.data.sources.scenes.features import ATTRIBUTES, FEATURES
from vision.data.sources.scenes.graph import RELATIONS, relations
from vision.data.sources.scenes.labels import LABELS, read_label
from vision.data.sources.scenes.languages import translate
from vision.data.sources.scenes.noise import CAPTION_NOISE, DUPLICATES, LABEL_NOISE, cramers_v
from vision.data.sources.scenes.pen import draw_strokes, stroke_array, strokes
from vision.data.sources.scenes.record import Artefact, Background, Glyph, Object, Scene, View
from vision.data.sources.scenes.renderer import Rendering, render
from vision.data.sources.scenes.source import Scenes
from vision.data.sources.scenes.triplets import DISTRACTORS, Triplet, Triplets, triplet
from vision.data.sources.scenes.world import World

__all__ = [
    "ATTRIBUTES",
    "CAPTION_NOISE",
    "DETAILS",
    "DISTRACTORS",
    "DUPLICATES",
    "EDITS",
    "FEATURES",
    "LABELS",
    "LABEL_NOISE",
    "MOTIONS",
    "RELATIONS",
    "Artefact",
    "Background",
    "Clause",
    "Clips",
    "Edit",
    "Glyph",
    "Mention",
    "Object",
    "Parse",
    "Relation",
    "Rendering",
    "Scene",
    "Scenes",
    "Triplet",
    "Triplets",
    "View",
    "World",
    "add",
    "agrees",
    "apply",
    "caption",
    "change",
    "clauses",
    "clip",
    "cramers_v",
    "describe",
    "draw_strokes",
    "film",
    "ground",
    "parse",
    "read_label",
    "read_modifier",
    "relations",
    "remove",
    "render",
    "replace_background",
    "stroke_array",
    "strokes",
    "translate",
    "triplet",
    "write",
    "write_modifier",
]
