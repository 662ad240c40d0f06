"""Repeated names, found in one pass: headers and lists of a file can be long."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def first_repeated(items: Iterable[T]) -> T | None:
    """The first item that is equal to one before it; None where all differ."""
    seen: set[T] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
