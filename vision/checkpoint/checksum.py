"""Checksums of arrays, the same on any device mesh and on the host.

An element's bits x and its place i in row-major order are mixed to two 32-bit numbers by maps that
are one-to-one in x for a given i. Both are added up modulo 2^32 over the array. Since integer
sums do not depend on their order, the result does not depend on how the array is split; since a
change of one element changes its term, no change of a single element goes unnoticed, whatever
its bits. Changes of several elements cancel in both sums with probability 2^-64 unless they were
made to. The finalizer of MurmurHash3 (Appleby, 2011, public domain) does the mixing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    # Of either library: the mixing is written once for both.
    Words = Any

Sums = tuple[jax.Array | np.ndarray, ...]

# Elements that the host mixes at a time: their intermediate values stay in the cache.
_CHUNK = 1 << 14
# Parts of a ``jax.Array`` with fewer elements are summed on the host, in less than half a
# millisecond. A program for their shape takes a hundred to compile, and a state has dozens.
_DEVICE_ELEMENTS = 1 << 16


def checksum(x: jax.Array | np.ndarray) -> Sums:
    """Two uint32 sums over the bits and places of the elements of ``x``, in parts.

    Of a ``jax.Array`` every large part is computed on the device where it lies, without waiting,
    and no device waits for another; a small part is waited for and computed on the host. The parts
    that this process holds are summed, copies once over all processes. Adding up the parts of all
    processes (``total``) gives the checksum. Of a NumPy array it is computed here.

    Args:
      x: any shape, scalars and empty arrays included; any dtype of 1, 2, 4 or 8 bytes, bool,
        4-bit integers or complex64.
    """
    if not isinstance(x, jax.Array):
        return (_on_host(np.asarray(x), (0,) * np.ndim(x), np.shape(x)),)
    parts = (shard for shard in x.addressable_shards if shard.replica_id == 0)
    return tuple(_of_part(shard.data, shard.index, x.shape) for shard in parts)


def total(parts: Iterable[Any]) -> tuple[int, int]:
    """The sum of pairs of numbers or arrays, modulo 2^32; waits for them."""
    pairs = np.asarray([np.asarray(part, np.uint32) for part in parts], np.uint64)
    first, second = pairs.reshape(-1, 2).sum(axis=0) % 2**32
    return int(first), int(second)


def as_text(parts: Iterable[Any]) -> str:
    """Sixteen hexadecimal digits of the checksum with these parts; waits for them."""
    first, second = total(parts)
    return f"{first:08x}{second:08x}"


def _of_part(
    x: jax.Array, index: tuple[slice, ...], shape: tuple[int, ...]
) -> jax.Array | np.ndarray:
    starts = tuple(part.start or 0 for part in index)
    if x.size < _DEVICE_ELEMENTS:
        return _on_host(np.asarray(x), starts, shape)
    return _on_device(x, np.asarray(starts, np.uint32), shape)


@functools.partial(jax.jit, static_argnames="shape")
def _on_device(x: jax.Array, starts: jax.Array | np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """``x`` is the part of an array of ``shape`` that begins at ``starts``."""
    words = _device_words(x)
    # Elements of 8 bytes have a last axis of two words.
    sizes = (*shape, *words.shape[len(shape) :])
    index, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        position = lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position + starts[axis] if axis < len(shape) else position
        index = index + position * np.uint32(stride % 2**32)
        stride *= sizes[axis]
    sums = _mix(words, index)
    # Rows first: one loop makes both sums of a row, rows run side by side. A CPU needs a
    # twentieth of the time of two separate sums over everything.
    for axes in (range(1, words.ndim), range(min(words.ndim, 1))):
        zeros = (np.uint32(0), np.uint32(0))
        sums = lax.reduce(sums, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(axes))
    return jnp.stack(sums)


def _on_host(x: np.ndarray, starts: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """As ``_on_device``."""
    words = _host_words(np.ascontiguousarray(x).reshape(-1))
    places = None if x.shape == shape else _places(x, starts, shape, words.size // max(x.size, 1))
    first = second = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK].astype(np.uint32)
        if places is None:
            index = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        else:
            index = places[start : start + _CHUNK]
        first_terms, second_terms = _mix(part, index)
        first += int(first_terms.sum(dtype=np.uint64))
        second += int(second_terms.sum(dtype=np.uint64))
    return np.asarray([first % 2**32, second % 2**32], np.uint32)


def _places(
    x: np.ndarray, starts: tuple[int, ...], shape: tuple[int, ...], words: int
) -> np.ndarray:
    """Places in an array of ``shape`` of the words of its part ``x``, ``words`` for an element."""
    places, stride = np.arange(words, dtype=np.uint64), words
    for axis in reversed(range(x.ndim)):
        positions = starts[axis] + np.arange(x.shape[axis], dtype=np.uint64)
        places = (positions[:, None] * np.uint64(stride) + places).reshape(-1)
        stride *= shape[axis]
    return places.astype(np.uint32)


def _mix(words: Words, index: Words) -> tuple[Words, Words]:
    """Both terms of every element. Each operation is one-to-one in ``words``."""
    u32 = np.uint32
    first = words ^ (index * u32(0x9E3779B1) + u32(0x7F4A7C15))
    first = (first ^ (first >> u32(16))) * u32(0x85EBCA6B)
    first = (first ^ (first >> u32(13))) * u32(0xC2B2AE35)
    first = first ^ (first >> u32(16))
    second = (first ^ (index * u32(0x27D4EB2F))) * u32(0x165667B1)
    return first, second ^ (second >> u32(15))


def _device_words(x: jax.Array) -> jax.Array:
    """The bits of every element as uint32; of 8-byte elements as two along a last axis."""
    if x.dtype == jnp.complex64:
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    bits = jnp.iinfo(x.dtype).bits if jnp.issubdtype(x.dtype, jnp.integer) else None
    if bits is not None and bits < 8:
        x = x.astype(jnp.int8)
    size = x.dtype.itemsize
    if size > 4:
        return lax.bitcast_convert_type(x, jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[size]
    return lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _host_words(x: np.ndarray) -> np.ndarray:
    """As ``_device_words`` of a flat array; unsigned integers of any size up to 4 bytes."""
    if x.dtype == np.bool_:
        return x.view(np.uint8)
    if jnp.issubdtype(x.dtype, jnp.integer) and jnp.iinfo(x.dtype).bits < 8:
        x = x.astype(np.int8)
    return x.view({1: np.uint8, 2: np.uint16}.get(math.gcd(x.dtype.itemsize, 4), np.uint32))
