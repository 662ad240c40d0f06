"""The scenes of a config's sources, drawn once for all runs of a claim."""

from __future__ import annotations

import functools
import json
from typing import Any

import ml_collections

from vision.config.specs import build, from_plain, spec, to_json, to_plain
from vision.data.sources.arrays import Arrays

SCENES = "vision.data.sources.scenes.Scenes"


def drawn(config: ml_collections.ConfigDict) -> Any:
    """A config, every source of scenes in it replaced by the same records in memory."""

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            if node.get("_constructor") == SCENES:
                return to_plain(spec(records, scenes=to_json(from_plain(node))))
            return {key: replace(value) for key, value in node.items()}
        return [replace(item) for item in node] if isinstance(node, list) else node

    return from_plain(replace(to_plain(config)))


@functools.cache
def records(scenes: str) -> Arrays:
    """The records of a source, given as the JSON of its spec: pictures, labels and texts."""
    source = build(from_plain(json.loads(scenes)))
    arrays = source.__getitems__(range(len(source)))
    return Arrays(arrays, source.info.name, source.class_names)
