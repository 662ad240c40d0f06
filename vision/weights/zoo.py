"""Towers that come with the repository: ``zoo:emoji_vit``.

A member is a folder of ``zoo/`` as ``python -m vision.weights.export --dtype=float16`` writes it,
and ``card.json``: how it was made and what it reaches. ``python -m vision.zoo`` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.config.config_files import recipes
from vision.config.hints import CONSTRUCTOR
from vision.config.modes import Config
from vision.config.schema import nearest
from vision.config.specs import from_plain, to_plain, with_defaults
from vision.run.workdir import read_config
from vision.weights.mapping import WeightsError

SCHEME = "zoo"
CARD = "card.json"
LABELS = "labels.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FEATURES = "features.safetensors"
"""What a member has that is no tower but features of one; ``vision.zoo.features`` reads them."""


def zoo_folder() -> Path:
    """The folder that holds the members; beside ``configs``."""
    return recipes() / "zoo"


def members(features: bool = False) -> tuple[str, ...]:
    """Names of the members that are there, sorted: the towers, or those that have features."""
    folders = [path.parent for path in zoo_folder().glob(f"*/{CARD}")]
    found = (folder.name for folder in folders if (folder / FEATURES).is_file() == features)
    return tuple(sorted(found))


def folder_of(name: str, features: bool = False) -> Path:
    """The folder of a member.

    Args:
      name: of a tower.
      features: it is the name of features.

    Raises:
      WeightsError: there is none of that name.
    """
    there = members(features)
    if name not in there:
        raise WeightsError(
            f"{SCHEME}:{name} is not in {zoo_folder()}, which has {', '.join(there) or 'nothing'}"
            f"{nearest(name, [*there])}"
        )
    return zoo_folder() / name


def card(name: str, features: bool = False) -> dict[str, Any]:
    """How a member was made and what it reaches; arguments as of ``folder_of``.

    Raises:
      WeightsError: no such member, or its card is damaged.
    """
    return _json(folder_of(name, features) / CARD)


def config(name: str) -> dict[str, Any]:
    """The resolved config that a member was trained with, as plain data, in the names and defaults
    of today.

    Raises:
      WeightsError: no such member.
      UserError: the config is damaged, or names what is not ours.
    """
    return to_plain(read_config(folder_of(name)))


def tower(values: Mapping[str, Any], path: Path) -> Config:
    """The tower in a resolved config, without the number of classes.

    Raises:
      WeightsError: the config has no model.
    """
    if not values.get("model"):
        raise WeightsError(f"{path} has no model: make the member again, python -m vision.zoo")
    return with_defaults(from_plain(values["model"]))


def tokenizer(values: Mapping[str, Any]) -> Config | None:
    """The first tokenizer in the evaluators of a resolved config; None where there is none."""
    waiting: list[Any] = [values.get("evaluators")]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, dict):
            if node.get("tokenizer"):
                return from_plain(node["tokenizer"])
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; check it out again") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} does not hold an object; check it out again")
    return values


def class_names(name: str) -> tuple[str, ...]:
    """Names in the order of the logits of a classifier; empty for what is none.

    Raises:
      WeightsError: as of ``card``, or the list is damaged.
    """
    objective = config(name).get("objective") or {}
    if not str(objective.get(CONSTRUCTOR, "")).endswith(".Classify"):
        return ()
    path = folder_of(name) / LABELS
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; check it out again") from error
    return tuple(map(str, names))
