"""What can be set in a config: every key with its value, its type and what it is."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from vision.config.hints import CONSTRUCTOR, is_spec, show
from vision.config.schema import locate, parameters
from vision.config.specs import load

_WIDTH = 100
# ``name: text`` or ``first, second: text``; deeper lines go on with a text.
_ENTRY = re.compile(r"  ((?:\*{0,2}\w+, )*\*{0,2}\w+): (.*)")


def config_tree(reference: str) -> str:
    """The parts of a config as indented lines.

    Args:
      reference: as ``--config`` takes it.

    Raises:
      UserError: a config that cannot be read.
    """
    config = load(reference)
    head = (
        f"{reference}: what --config.KEY=VALUE can set. After = is the value here; in brackets the "
        "type, and the constructor's default where it is another."
    )
    return "\n".join([*textwrap.wrap(head, _WIDTH), "", *_lines(config, "config", 0)])


def documented(constructor: Callable[..., Any]) -> dict[str, str]:
    """Parameter to its text in the docstring, from ``Attributes:`` or ``Args:``; a class has those
    of its bases too."""
    found: dict[str, str] = {}
    bases = reversed(constructor.__mro__) if isinstance(constructor, type) else (constructor,)
    for each in bases:
        names: list[str] = []
        inside = False
        for line in inspect.cleandoc(each.__doc__ or "").splitlines():
            if line in ("Attributes:", "Args:"):
                inside = True
            elif line and not line.startswith(" "):
                inside = False
            elif inside and (entry := _ENTRY.fullmatch(line)):
                names = [name.lstrip("*") for name in entry[1].split(", ")]
                found |= dict.fromkeys(names, entry[2])
            elif inside and line.strip():
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _lines(node: Any, path: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    constructor = locate(node[CONSTRUCTOR])
    accepted, texts = parameters(constructor), documented(constructor)
    yield f"{indent}{path}: {constructor.__name__}  ({node[CONSTRUCTOR]})"
    for key, value in node.items():
        if key == CONSTRUCTOR:
            continue
        about = [show(accepted[key].hint)] if key in accepted else []
        known = key in accepted and not accepted[key].required
        if known and not _same(accepted[key].default, value):
            about.append(f"default {_short(accepted[key].default)}")
        described = f"  [{'; '.join(about)}]" if about else ""
        shown = "" if _specs_in(value) else f" = {_short(value)}"
        yield f"{indent}  {key}{shown}{described}"
        if text := texts.get(key):
            yield from textwrap.wrap(
                text, max(40, _WIDTH), initial_indent=f"{indent}      ",
                subsequent_indent=f"{indent}      ",
            )  # fmt: skip
        for place, part in _specs_in(value):
            yield from _lines(part, f"{path}.{key}{place}", depth + 2)


def _specs_in(value: Any) -> list[tuple[str, Any]]:
    """Parts of a value that name constructors, with their places in it."""
    if is_spec(value):
        return [("", value)]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", x) for i, x in enumerate(value) if is_spec(x)]
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return [(f".{name}", x) for name, x in value.items() if is_spec(x)]
    return []


def _same(default: Any, value: Any) -> bool:
    if _specs_in(value):
        return False
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return list(default) == list(value)
    return bool(default == value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
