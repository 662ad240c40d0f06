"""Signatures as schemas: what a constructor accepts, and whether a value fits an annotation."""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vision.core.errors import UserError
from vision.core.old_names import current_path

CONSTRUCTOR = "_constructor"
# Linen adds these two to every module's constructor; configs have no use for them.
_LINEN_FIELDS = frozenset({"parent", "name"})


class ConfigError(UserError):
    """A config is wrong; the message is one line for the person who wrote it."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One keyword argument of a constructor."""

    hint: Any
    required: bool
    default: Any


def is_spec(node: Any) -> bool:
    """Whether a config node names a constructor."""
    return isinstance(node, ml_collections.ConfigDict) and CONSTRUCTOR in node


def parameters(constructor: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword arguments that a config may set on ``constructor``, in order."""
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{constructor!r} cannot be configured: {error}") from error
    module = sys.modules.get(constructor.__module__)
    names = {**vars(typing), **(vars(module) if module else {})}
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
        hint = parameter.annotation
        if hint is parameter.empty:
            hint = Any
        elif isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except Exception:  # annotations under TYPE_CHECKING cannot be checked
                hint = Any
        required = parameter.default is parameter.empty
        result[name] = Parameter(hint, required, None if required else parameter.default)
    return result


def public_path(constructor: Callable[..., Any]) -> str:
    """The import path that configs and workdirs store for ``constructor``.

    Its module, or the outermost package around it that exports it under its name: ``optax.sgd``,
    ``vision.data.ops.Decode``. The lazy names of ``vision`` itself do not count: they are for
    people, and stored paths do not change with them. Moves: ``vision.core.old_names``.

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


def fits(value: Any, hint: Any) -> bool:
    """Whether a config value can be passed where ``hint`` is declared."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin is typing.Annotated:
        return fits(value, args[0])
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    base = origin or hint
    if base is tuple and args and args[-1] is not Ellipsis:
        if not isinstance(value, (list, tuple)) or len(value) != len(args):
            return False
        return all(fits(v, a) for v, a in zip(value, args, strict=True))
    if base in (tuple, list, collections.abc.Sequence):
        item = args[0] if args else Any
        return isinstance(value, (list, tuple)) and all(fits(v, item) for v in value)
    if base in (dict, collections.abc.Mapping):
        item = args[1] if len(args) == 2 else Any
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)) or is_spec(value):
            return False
        return all(fits(v, item) for v in value.values())
    # Any other class or protocol: something that build() makes, or a default instance.
    return is_spec(value) or (value is not None and not _is_scalar(value))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, list, tuple))


def show(hint: Any) -> str:
    """An annotation in words, for messages."""
    if hint in (Any, None, type(None)):
        return "anything" if hint is Any else "None"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(show(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is not None:
        return re.sub(r"\b[\w.]+\.(\w+)", r"\1", str(hint))
    if hint in (bool, int, float, str, tuple, list, dict):
        return hint.__name__
    return f"spec(...) of a {getattr(hint, '__name__', hint)}"


def parse(text: str, hint: Any, where: str) -> Any:
    """``text`` as a value of type ``hint``; strings need no quotes."""
    candidates: list[Any] = []
    lowered = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in lowered:
        candidates.append(lowered[text.lower()])
    with contextlib.suppress(ValueError, SyntaxError):
        candidates.append(ast.literal_eval(text))
    candidates.append(text)
    if hint is str:
        candidates.reverse()
    for candidate in candidates:
        if fits(candidate, hint):
            return candidate
    raise ConfigError(f"{where}: expected {show(hint)}")


def kind(value: Any) -> str:
    """A value with its type, shortened, for messages."""
    return f"{type(value).__name__} {value!r}"[:80]
