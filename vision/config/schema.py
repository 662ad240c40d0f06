"""Signatures as schemas: what a constructor accepts, and values read from texts."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import UserError
from vision.config.hints import CONSTRUCTOR, field_hints, fits, resolved, show
from vision.config.old_names import current_parameter, current_path, dropped

# Linen adds these two to every module's constructor; configs have no use for them.
_LINEN_FIELDS = frozenset({"parent", "name"})


class ConfigError(UserError):
    """A config is wrong; the message is one line for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One keyword argument of a constructor.

    Attributes:
      hint: its annotation; ``Any`` where there is none or it cannot be read.
      required: whether it has no default.
      default: its default; None where it is required.
    """

    hint: Any
    required: bool
    default: Any


def parameters(constructor: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword arguments that a config may set on ``constructor``, in order."""
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{constructor!r} cannot be configured: {error}") from error
    fields = field_hints(constructor) if dataclasses.is_dataclass(constructor) else {}
    result = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if (
            isinstance(constructor, type)
            and name in _LINEN_FIELDS
            and hasattr(constructor, "apply")
        ):
            continue
        if parameter.annotation is parameter.empty:
            hint = Any
        else:
            hint = fields.get(name) or resolved(parameter.annotation, constructor)
        required = parameter.default is parameter.empty
        result[name] = Parameter(hint, required, None if required else parameter.default)
    return result


def public_path(constructor: Callable[..., Any]) -> str:
    """The import path that configs and workdirs store for ``constructor``.

    Its module, or the outermost package around it that exports it under its name: ``optax.sgd``,
    ``vision.data.ops.Decode``. The lazy names of ``vision`` itself do not count: they are for
    people, and stored paths do not change with them. Moves: ``vision.config.old_names``.

    Raises:
      ConfigError: it is defined in a function or a script, where nothing can import it from.
    """
    parts = constructor.__module__.split(".")
    name = constructor.__qualname__
    if "<locals>" in name or parts == ["__main__"]:
        raise ConfigError(f"{name} is not importable: define it at the top of a module")
    for end in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:end]))
        if parts[:end] != ["vision"] and getattr(module, name, None) is constructor:
            return ".".join([*parts[:end], name])
    return f"{constructor.__module__}.{name}"


def locate(path: Any) -> Callable[..., Any]:
    """The constructor behind an import path, of today or of before a move."""
    module_path, _, name = current_path(str(path)).rpartition(".")
    try:
        return getattr(importlib.import_module(module_path), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot import constructor {path!r}: {error}") from error


def current_name(constructor: str, key: str, value: Any) -> str | None:
    """Today's name of a parameter that a stored config sets to ``value``; None where it is gone.

    Raises:
      ConfigError: it is gone, and ``value`` is something else than today's code does.
    """
    gone, kept = dropped(constructor, key)
    if gone and value != kept:
        raise ConfigError(
            f"{constructor} had {key}={value!r} when this config was written; the parameter is "
            f"gone, and today's code does what {key}={kept!r} did: use the version of the code "
            "that wrote it"
        )
    return None if gone else current_parameter(constructor, key)


def definition(constructor: Callable[..., Any]) -> str:
    """``vision/models/vit.py:41``: where to read what a constructor accepts."""
    try:
        file = Path(inspect.getsourcefile(constructor) or "")
        line = inspect.getsourcelines(constructor)[1]
    except (OSError, TypeError):
        return public_path(constructor)
    root = Path(__file__).resolve().parents[2]
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    return f"{shown}:{line}"


def unknown_key(key: str, accepted: Mapping[str, Any], constructor: Callable[..., Any]) -> str:
    """Says that a constructor has no such parameter, which is nearest, and where it is defined."""
    return (
        f"{constructor.__name__} has no parameter {key!r}{nearest(key, list(accepted))} "
        f"({definition(constructor)})"
    )


def nearest(key: str, valid: list[str]) -> str:
    """``; did you mean 'width'?``, or the valid keys when none is near."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid: {', '.join(k for k in valid if k != CONSTRUCTOR)}" if valid else ""


def parse(text: str, hint: Any, where: str) -> Any:
    """``text`` as a value of type ``hint``; strings need no quotes."""
    candidates: list[Any] = []
    lowered = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in lowered:
        candidates.append(lowered[text.lower()])
    with contextlib.suppress(ValueError, SyntaxError):
        candidates.append(ast.literal_eval(text))
    candidates += [_whole(each) for each in candidates]
    candidates.append(text)
    if hint is str:
        candidates.reverse()
    for candidate in candidates:
        if fits(candidate, hint):
            return candidate
    specs = "; a spec(...) stands in a config file, and here only values do"
    raise ConfigError(f"{where}: expected {show(hint)}{specs if 'spec(' in text else ''}")


def _whole(value: Any) -> Any:
    """``value`` with whole floats, such as 1e3, as the integers they are; also inside tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_whole, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def kind(value: Any) -> str:
    """A value with its type, shortened, for messages."""
    return f"{type(value).__name__} {value!r}"[:80]
