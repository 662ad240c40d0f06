"""Parts of a config that stand for others, which are read when the config is.

A constructor whose objects have ``expanded`` is never part of a run: ``load`` builds such a node
and puts what it stands for into its place, so that the stored config shows that and needs nothing
else later. ``vision.weights.pretrained.Pretrained`` is one: the tower of some weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import ml_collections

from vision.config.errors import UserError
from vision.config.hints import CONSTRUCTOR, is_spec
from vision.config.modes import Config
from vision.config.schema import ConfigError, locate, parameters
from vision.config.specs import build, override, validate


class Stands(Protocol):
    """What a node stands for."""

    def expanded(self) -> Config | tuple[Config, ...]:
        """The node, or in a list the nodes, in its place."""
        ...


@runtime_checkable
class Fills(Stands, Protocol):
    """What stands for a node, and sets a field elsewhere too.

    Attributes:
      fills: a field of the nearest config above that has it, which is set where it is None.
    """

    fills: ClassVar[str]

    def beside(self, place: str) -> Config:
        """What that field becomes.

        Args:
          place: from that config to this node, with dots, such as ``model.tower``.
        """
        ...


def expands(node: Any) -> bool:
    """Whether a node of a config stands for something else."""
    return is_spec(node) and hasattr(locate(node[CONSTRUCTOR]), "expanded")


def expand(config: Any, source: str = "config") -> Any:
    """A config in which what stands for something else is replaced by that.

    Raises:
      ConfigError: a node cannot be built or does not say what it stands for; it is named.
    """
    return _expand(config, (), source)


def _expand(node: Any, above: tuple[tuple[Any, str], ...], source: str) -> Any:
    if isinstance(node, (list, tuple)):
        items: list[Any] = []
        for i, item in enumerate(node):
            found = _expand(item, (*above, (None, f"[{i}]")), source)
            spliced = expands(item) and isinstance(found, tuple)
            items += found if spliced else (found,)
        return tuple(items)
    if not isinstance(node, ml_collections.ConfigDict):
        return node
    if expands(node):
        return _replacement(node, above, source)
    copy = node.copy_and_resolve_references()
    for key in list(node):
        if key == CONSTRUCTOR or not _has_expanding(node[key]):
            continue
        value = _expand(node[key], (*above, (copy, key)), source)
        with copy.unlocked(), copy.ignore_type():
            copy[key] = value
    return copy


def _has_expanding(node: Any) -> bool:
    if isinstance(node, (list, tuple)):
        return any(map(_has_expanding, node))
    if not isinstance(node, ml_collections.ConfigDict):
        return False
    return expands(node) or any(_has_expanding(value) for value in node.values())


def _replacement(
    node: Config, above: tuple[tuple[Any, str], ...], source: str
) -> Config | tuple[Config, ...]:
    path = ".".join(key for _, key in above).replace(".[", "[")
    where = f"{source}: config.{path}" if path else source
    try:
        validate(node, source=where)
        stands = cast(Stands, build(node))
        found = stands.expanded()
        if isinstance(stands, Fills):
            _fill(stands, above)
    except UserError as error:
        raise ConfigError(str(error) if where in str(error) else f"{where}: {error}") from error
    return found


def _fill(stands: Fills, above: tuple[tuple[Any, str], ...]) -> None:
    for depth in range(len(above) - 1, -1, -1):
        parent, _ = above[depth]
        accepted = parameters(locate(parent[CONSTRUCTOR])) if is_spec(parent) else {}
        if stands.fills in accepted:
            place = ".".join(key for _, key in above[depth:]).replace(".[", "[")
            beside = stands.beside(place)
            if parent.get(stands.fills) is None:
                with parent.unlocked(), parent.ignore_type():
                    parent[stands.fills] = beside
            return


def overridden(config: Any, overrides: Mapping[str, str], source: str) -> Any:
    """A config, expanded, with overrides from the command line.

    Those of fields of what stands for something else come before, the others after it.
    """
    first = [key for key in overrides if _is_of_stand_in(config, key)]
    for key in first:
        override(config, key, overrides[key], source=source)
    if _has_expanding(config):
        config = expand(config, source)
    for key, text in overrides.items():
        if key not in first:
            override(config, key, text, source=source)
    return config


def _is_of_stand_in(node: Any, path: str) -> bool:
    parts = re.findall(r"[^.\[\]]+", path)
    for part in parts:
        if expands(node):
            return part in parameters(locate(node[CONSTRUCTOR]))
        if isinstance(node, (list, tuple)):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, ml_collections.ConfigDict) else None
    return False
