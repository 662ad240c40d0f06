"""Ranges of fields, as annotations: ``width: Positive[int]``, ``drop_path: Rate``.

A config is checked against them before anything is built (``vision.config.specs``), and a class
that is ``checked`` checks its fields whenever it is made. Those that are not here are written with
the constraints of ``annotated_types``, as in ``Annotated[float, Gt(0), Le(10)]``, or as a ``Rule``
with words of its own. ``Literal`` is a range, too. NaN lies in none. Relations
between several fields stand in ``__post_init__``, which runs after the ranges are checked.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from vision.config.hints import Rule, field_hints, misfit, ranged

__all__ = [
    "Even",
    "Finite",
    "Fraction",
    "Ge",
    "Gt",
    "Le",
    "Lt",
    "MinLen",
    "NonEmpty",
    "NonNegative",
    "Odd",
    "Positive",
    "PositiveRange",
    "Rate",
    "Regex",
    "Rule",
    "Unique",
    "checked",
    "one_of",
]

T = TypeVar("T")
Class = TypeVar("Class", bound=type)


def one_of(names: Iterable[str]) -> Rule:
    """The rule that a text is one of ``names``: for names that a table has; else ``Literal``."""
    names = tuple(names)
    return Rule("one of " + ", ".join(map(repr, names)), names.__contains__)


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _are_unique(items: Any) -> bool:
    return len(set(items)) == len(items)


Positive = Annotated[T, Gt(0)]
NonNegative = Annotated[T, Ge(0)]
Finite = Annotated[float, Gt(-math.inf), Lt(math.inf)]
Fraction = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]
Odd = Annotated[int, Ge(1), Rule("odd", lambda n: n % 2 == 1)]
Even = Annotated[int, Ge(2), Rule("even", lambda n: n % 2 == 0)]
NonEmpty = Annotated[T, MinLen(1)]
Unique = Annotated[T, Rule("no item twice", _are_unique)]
Regex = Annotated[str, Rule("a regular expression", _is_regex)]
PositiveRange = Annotated[
    tuple[float, float],
    Rule("(low, high) with 0 < low <= high", lambda pair: 0 < pair[0] <= pair[1]),
]


def checked(cls: Class) -> Class:
    """A class that compares its fields with their annotated ranges before ``__post_init__``.

    For dataclasses, below ``@dataclasses.dataclass``, and for linen modules. Subclasses inherit it
    for their own fields, too. Only ranges are compared, and ``Literal``; the types of other fields
    are left to type checkers.

    Raises (when an instance is made):
      ValueError: ``ViT: depth is 0, expected a whole number >= 1``.
    """
    after = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any, *args: Any) -> None:
        for name, hint in _ranged_fields(type(self)):
            wrong = misfit(_plain(getattr(self, name)), hint)
            if wrong is not None:
                raise ValueError(f"{type(self).__name__}: {name}{wrong}")
        if after is not None:
            after(self, *args)

    cls.__post_init__ = __post_init__
    return cls


@functools.cache
def _ranged_fields(cls: type) -> tuple[tuple[str, Any], ...]:
    hints = field_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    return tuple((name, hints[name]) for name in names if ranged(hints[name]))


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, also inside tuples and lists."""
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if kind is tuple or kind is list:
        return kind(map(_plain, value))
    return value
