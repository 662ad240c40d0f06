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


Check = Callable[[Any], Misfit | None]


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
    return _check_of(hint)(value)


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


@functools.cache
def _check_of(hint: Any) -> Check:
    """``misfit`` of one annotation; made once, since some fields are checked for every example."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    base = origin or hint
    if origin is typing.Annotated:
        return _of_ranged(hint, args[0], [_holds(c) for c in _flat(args[1:]) if _known(c)])
    if origin in (typing.Union, types.UnionType):
        return _of_union(hint, [_check_of(arg) for arg in args])
    if base is tuple and args and args[-1] is not Ellipsis:
        return _of_pair(hint, [_check_of(arg) for arg in args])
    if base in (tuple, list, collections.abc.Sequence):
        return _of_items(hint, _check_of(args[0] if args else Any))
    if base in (dict, collections.abc.Mapping):
        return _of_mapping(hint, _check_of(args[1] if len(args) == 2 else Any))
    is_one = _single(hint, origin, args)
    return lambda value: None if is_one(value) else Misfit("", value, hint)


def _of_ranged(hint: Any, base: Any, tests: list[Callable[[Any], bool]]) -> Check:
    check_base = _check_of(base)

    def check(value: Any) -> Misfit | None:
        if (inner := check_base(value)) is not None:
            return inner if inner.path else Misfit("", value, hint)
        for test in tests:
            if not test(value):
                return Misfit("", value, hint)
        return None

    return check


def _of_union(hint: Any, checks: list[Check]) -> Check:
    def check(value: Any) -> Misfit | None:
        wrong = []
        for each in checks:
            if (one := each(value)) is None:
                return None
            wrong.append(one)
        # The item is named where only one alternative is of the value's kind.
        inside = [one for one in wrong if one.path]
        return inside[0] if len(inside) == 1 else Misfit("", value, hint)

    return check


def _of_pair(hint: Any, checks: list[Check]) -> Check:
    def check(value: Any) -> Misfit | None:
        if not isinstance(value, (list, tuple)) or len(value) != len(checks):
            return Misfit("", value, hint)
        for i, (item, each) in enumerate(zip(value, checks, strict=True)):
            if (wrong := each(item)) is not None:
                return _inside(i, wrong)
        return None

    return check


def _of_items(hint: Any, check_item: Check) -> Check:
    def check(value: Any) -> Misfit | None:
        if not isinstance(value, (list, tuple)):
            return Misfit("", value, hint)
        for i, item in enumerate(value):
            if (wrong := check_item(item)) is not None:
                return _inside(i, wrong)
        return None

    return check


def _of_mapping(hint: Any, check_item: Check) -> Check:
    def check(value: Any) -> Misfit | None:
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)) or is_spec(value):
            return Misfit("", value, hint)
        for key, item in value.items():
            if (wrong := check_item(item)) is not None:
                return _inside(key, wrong)
        return None

    return check


def _inside(key: Any, wrong: Misfit) -> Misfit:
    here = f".{key}" if isinstance(key, str) else f"[{key}]"
    return Misfit(f"{here}{wrong.path}", wrong.value, wrong.hint)


def _single(hint: Any, origin: Any, args: tuple[Any, ...]) -> Callable[[Any], bool]:
    """Whether a value fits an annotation that holds no others."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return lambda value: True
    if origin is typing.Literal:
        return lambda value: any(value == arg and type(value) is type(arg) for arg in args)
    if hint is None or hint is type(None):
        return lambda value: value is None
    if hint in (bool, str):
        return lambda value: isinstance(value, hint)
    if hint is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    # Any other class or protocol: something that build() makes, or a default instance.
    scalars = (bool, int, float, str, list, tuple)
    return lambda value: is_spec(value) or (value is not None and not isinstance(value, scalars))


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, at.GroupedMetadata):
            yield from each
        else:
            yield each


def _known(constraint: Any) -> bool:
    return isinstance(constraint, (Rule, at.Gt, at.Ge, at.Lt, at.Le, at.MinLen))


def _holds(constraint: Any) -> Callable[[Any], bool]:
    """Whether a value satisfies a constraint; NaN satisfies no bound."""
    match constraint:
        case at.Gt(gt=bound):
            return lambda value: value > bound
        case at.Ge(ge=bound):
            return lambda value: value >= bound
        case at.Lt(lt=bound):
            return lambda value: value < bound
        case at.Le(le=bound):
            return lambda value: value <= bound
        case at.MinLen(min_length=least):
            return lambda value: len(value) >= least
        case Rule(holds=holds):
            return holds
    raise TypeError(f"{constraint} is no constraint of a range")


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
    bounds = [b for b in bounds if b != at.Gt(-math.inf)]
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
