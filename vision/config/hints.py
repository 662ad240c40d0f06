"""Annotations: whether a value fits one, which item of it does not, and an annotation in words."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import annotated_types as at
import ml_collections

CONSTRUCTOR = "_constructor"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What every value of an annotation ``Annotated[type, Rule(...)]`` satisfies.

    Attributes:
      words: the rule as the end of "expected ...".
      holds: whether a value, which is of the annotated type, satisfies it.
    """

    words: str
    holds: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Misfit:
    """The first part of a value that does not fit its annotation.

    Attributes:
      path: of the part inside the value, as in ``[1]``; "" for the value itself.
      value: the part.
      hint: what is declared there.
    """

    path: str
    value: Any
    hint: Any

    def __str__(self) -> str:
        """``[1] is 0, expected a whole number >= 1``; the caller writes the field's name before."""
        shown = self.value[CONSTRUCTOR] if is_spec(self.value) else repr(self.value)[:60]
        return f"{self.path} is {shown}, expected {show(self.hint)}"


def is_spec(node: Any) -> bool:
    """Whether a config node names a constructor."""
    return isinstance(node, ml_collections.ConfigDict) and CONSTRUCTOR in node


@functools.cache
def field_hints(cls: type) -> Mapping[str, Any]:
    """The annotations of a class and its bases, each read in the module of the class it stands in.

    One that cannot be read (it is imported for type checkers only) is ``Any``.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            hints[name] = resolved(hint, base)
    return hints


def resolved(hint: Any, where: Any) -> Any:
    """An annotation, read if it is a text, with the names of the module that defines ``where``."""
    if not isinstance(hint, str):
        return hint
    module = sys.modules.get(where.__module__)
    try:
        return eval(hint, {**vars(typing), **(vars(module) if module else {})})
    except Exception:  # annotations under TYPE_CHECKING cannot be checked
        return Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a config value can be passed where ``hint`` is declared."""
    return misfit(value, hint) is None


def misfit(value: Any, hint: Any) -> Misfit | None:
    """The first part of ``value`` that cannot be passed where ``hint`` is declared."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        if (inner := misfit(value, args[0])) is not None:
            return inner if inner.path else Misfit("", value, hint)
        return None if all(_holds(m, value) for m in _flat(args[1:])) else Misfit("", value, hint)
    if origin in (typing.Union, types.UnionType):
        wrong = [misfit(value, arg) for arg in args]
        if not all(wrong):
            return None
        # The item is named where only one alternative is of the value's kind.
        inside = [m for m in wrong if m is not None and m.path]
        return inside[0] if len(inside) == 1 else Misfit("", value, hint)
    base = origin or hint
    if base is tuple and args and args[-1] is not Ellipsis:
        if not isinstance(value, (list, tuple)) or len(value) != len(args):
            return Misfit("", value, hint)
        return _first(zip(range(len(args)), value, args, strict=True))
    if base in (tuple, list, collections.abc.Sequence):
        item = args[0] if args else Any
        if not isinstance(value, (list, tuple)):
            return Misfit("", value, hint)
        return _first((i, each, item) for i, each in enumerate(value))
    if base in (dict, collections.abc.Mapping):
        item = args[1] if len(args) == 2 else Any
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)) or is_spec(value):
            return Misfit("", value, hint)
        return _first((key, each, item) for key, each in value.items())
    return None if _is_one(value, hint, origin, args) else Misfit("", value, hint)


def show(hint: Any) -> str:
    """An annotation in words, for messages."""
    if hint in (Any, None, type(None)):
        return "anything" if hint is Any else "None"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(show(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is typing.Annotated:
        return _show_ranged(args[0], list(_flat(args[1:])))
    if origin is tuple and ranged(hint):
        items = [arg for arg in args if arg is not Ellipsis]
        if len(items) < len(args):
            return f"a tuple, each item {show(items[0])}"
        return f"{len(items)} values: {', '.join(map(show, items))}"
    if origin is not None:
        return re.sub(r"\b[\w.]+\.(\w+)", r"\1", str(hint))
    if hint in (bool, int, float, str, tuple, list, dict):
        return hint.__name__
    return f"spec(...) of a {getattr(hint, '__name__', hint)}"


def ranged(hint: Any) -> bool:
    """Whether ``hint`` restricts values of its type, anywhere inside it."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return True
    args = typing.get_args(hint)
    if origin is typing.Annotated:
        return any(_known(m) for m in _flat(args[1:])) or ranged(args[0])
    return any(ranged(arg) for arg in args)


def _first(items: Iterator[tuple[Any, Any, Any]]) -> Misfit | None:
    """The first misfit among (key, value, hint), with the key in its path."""
    for key, value, hint in items:
        if (wrong := misfit(value, hint)) is not None:
            here = f".{key}" if isinstance(key, str) else f"[{key}]"
            return Misfit(f"{here}{wrong.path}", wrong.value, wrong.hint)
    return None


def _is_one(value: Any, hint: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    """``fits`` for what holds no other annotations."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin is typing.Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
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
    # Any other class or protocol: something that build() makes, or a default instance.
    return is_spec(value) or (
        value is not None and not isinstance(value, (bool, int, float, str, list, tuple))
    )


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, at.GroupedMetadata):
            yield from each
        else:
            yield each


def _known(constraint: Any) -> bool:
    return isinstance(constraint, (Rule, at.Gt, at.Ge, at.Lt, at.Le, at.MinLen))


def _holds(constraint: Any, value: Any) -> bool:
    """Whether ``value`` satisfies one constraint; NaN satisfies no bound."""
    match constraint:
        case at.Gt(gt=bound):
            return value > bound
        case at.Ge(ge=bound):
            return value >= bound
        case at.Lt(lt=bound):
            return value < bound
        case at.Le(le=bound):
            return value <= bound
        case at.MinLen(min_length=least):
            return len(value) >= least
        case Rule(holds=holds):
            return bool(holds(value))
    return True


def _show_ranged(base: Any, constraints: list[Any]) -> str:
    """``a whole number >= 1, odd``; the type is not said where only rules restrict it."""
    rules = [c.words for c in constraints if isinstance(c, Rule)]
    short = [c.min_length for c in constraints if isinstance(c, at.MinLen)]
    rules += ["not empty" if n == 1 else f"at least {n} of them" for n in short]
    bounds = [c for c in constraints if isinstance(c, (at.Gt, at.Ge, at.Lt, at.Le))]
    if bounds:
        return ", ".join([_show_bounds(base is int, bounds), *rules])
    return ", ".join(rules if rules and not short else [show(base), *rules])


def _show_bounds(whole: bool, bounds: list[Any]) -> str:
    """``a whole number in 1..5``, ``a number in [0, 1)``, ``a number > 0``."""
    low = next((b for b in bounds if isinstance(b, (at.Gt, at.Ge))), None)
    high = next((b for b in bounds if isinstance(b, (at.Lt, at.Le))), None)
    noun = "a whole number" if whole else "a number"
    if isinstance(high, at.Lt) and high.lt == math.inf:
        noun, high = f"a finite {noun.removeprefix('a ')}", None
    least: Any = low.gt if isinstance(low, at.Gt) else low.ge if low is not None else None
    most: Any = high.lt if isinstance(high, at.Lt) else high.le if high is not None else None
    if whole:
        least = least + 1 if isinstance(low, at.Gt) else least
        most = most - 1 if isinstance(high, at.Lt) else most
        if low is not None and high is not None:
            return f"{noun} in {least}..{most}"
        return f"{noun} >= {least}" if low is not None else f"{noun} <= {most}"
    if low is not None and high is not None:
        left, right = "(["[isinstance(low, at.Ge)], ")]"[isinstance(high, at.Le)]
        return f"{noun} in {left}{least}, {most}{right}"
    if low is not None:
        return f"{noun} {'>' if isinstance(low, at.Gt) else '>='} {least}"
    return f"{noun} {'<' if isinstance(high, at.Lt) else '<='} {most}" if high else noun
