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
from vision.data.sources.scenes.features import ATTRIBUTES, FEATURES
from vision.data.sources.scenes.labels import LABELS, read_label
from vision.data.sources.scenes.record import Artefact, Background, Glyph, Object, Scene, View
from vision.data.sources.scenes.relations import RELATIONS, relations
from vision.data.sources.scenes.render import Rendering, render
from vision.data.sources.scenes.source import Scenes
from vision.data.sources.scenes.world import World

__all__ = [
    "ATTRIBUTES",
    "DETAILS",
    "FEATURES",
    "LABELS",
    "RELATIONS",
    "Artefact",
    "Background",
    "Glyph",
    "Mention",
    "Object",
    "Parse",
    "Relation",
    "Rendering",
    "Scene",
    "Scenes",
    "View",
    "World",
    "agrees",
    "caption",
    "describe",
    "parse",
    "read_label",
    "relations",
    "render",
    "write",
]
