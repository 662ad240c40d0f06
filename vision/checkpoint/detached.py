"""Copies of a CPU's state for a save, in memory that is used again from save to save.

A step that would overwrite arrays which are being saved waits until the save is over, so what is
saved are copies. Every program here takes all arrays at once: one for every shape takes a second or
two to compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

A = TypeVar("A", jax.Array, jax.ShapeDtypeStruct)
_Layout = tuple[str, tuple[int, ...], Any, Any]  # name, shape, dtype, sharding


class Copies:
    """The copies of the last save."""

    def __init__(self) -> None:
        self._last: dict[str, jax.Array] = {}

    def prepare(self, target: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """Has memory for arrays of this layout made in the background."""
        self._last = {}
        for part in _by_mesh(target):
            self._last |= _zeros(_layouts(part))()

    def of(self, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Name to a copy, which is overwritten by the next call."""
        room, self._last = self._last, {}
        for part in _by_mesh(arrays):
            old = {name: room.pop(name) for name in part if name in room}
            fits = _layouts(old) == _layouts(part)
            self._last |= _copy_over(old, part) if fits else _copy(part)
        return dict(self._last)

    def forget(self) -> None:
        self._last = {}


def _by_mesh(arrays: Mapping[str, A]) -> list[dict[str, A]]:
    """In parts of which each lies on the same devices in the same order, as a program wants it."""
    parts: dict[Any, dict[str, A]] = {}
    for name, x in arrays.items():
        mesh = getattr(x.sharding, "mesh", x.sharding)
        parts.setdefault(mesh, {})[name] = x
    return list(parts.values())


def _layouts(arrays: Mapping[str, A]) -> tuple[_Layout, ...]:
    return tuple((name, x.shape, x.dtype, x.sharding) for name, x in arrays.items())


@functools.lru_cache(maxsize=8)
def _zeros(layouts: tuple[_Layout, ...]) -> Callable[[], dict[str, jax.Array]]:
    shardings = {name: sharding for name, _, _, sharding in layouts}
    make = {name: (shape, dtype) for name, shape, dtype, _ in layouts}
    return jax.jit(
        lambda: {name: jnp.zeros(*x) for name, x in make.items()}, out_shardings=shardings
    )


@jax.jit
def _copy(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.copy(x) for name, x in arrays.items()}


@functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
def _copy_over(room: dict[str, jax.Array], arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return _copy(arrays)
