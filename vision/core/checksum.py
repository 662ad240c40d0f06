"""Checksums of arrays, the same on any device mesh and on the host.

An element's bits x and its place i in row-major order are mixed to two 32-bit numbers by maps that
are one-to-one in x for a given i. Both are added up modulo 2^32 over the array. Since integer
sums do not depend on their order, the result does not depend on how the array is split; since a
change of one element changes its term, no change of a single element goes unnoticed, whatever
its bits. Changes of several elements cancel in both sums with probability 2^-64 unless they were
made to. The finalizer of MurmurHash3 (Appleby, 2011, public domain) does the mixing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    # Of either library: the mixing is written once for both.
    Words = Any

# Elements that the host mixes at a time: their intermediate values stay in the cache.
_CHUNK = 1 << 14


def checksum(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Two uint32 sums over the bits and places of all elements of ``x``.

    Of a ``jax.Array`` they are computed where it lives, without waiting; every process that holds
    a part of it has to call this. Of a NumPy array they are computed here.

    Args:
      x: any shape, scalars and empty arrays included; any dtype of 1, 2, 4 or 8 bytes, bool,
        4-bit integers or complex64.
    """
    if not isinstance(x, jax.Array):
        return _on_host(np.asarray(x))
    return _on_device(x)


def as_text(sums: jax.Array | np.ndarray) -> str:
    """Sixteen hexadecimal digits; waits for ``sums``."""
    local = sums.addressable_data(0) if isinstance(sums, jax.Array) else sums
    first, second = np.asarray(local).tolist()
    return f"{first:08x}{second:08x}"


@jax.jit
def _on_device(x: jax.Array) -> jax.Array:
    words = _device_words(x)
    index, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        place = lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index = index + place * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    sums = _mix(words, index)
    # Rows first: one loop makes both sums of a row, rows run side by side. A CPU needs a
    # twentieth of the time of two separate sums over everything.
    for axes in (range(1, words.ndim), range(min(words.ndim, 1))):
        zeros = (np.uint32(0), np.uint32(0))
        sums = lax.reduce(sums, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(axes))
    return jnp.stack(sums)


def _on_host(x: np.ndarray) -> np.ndarray:
    words = _host_words(np.ascontiguousarray(x).reshape(-1))
    first = second = 0
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK].astype(np.uint32)
        places = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        one, two = _mix(part, places)
        first += int(one.sum(dtype=np.uint64))
        second += int(two.sum(dtype=np.uint64))
    return np.asarray([first % 2**32, second % 2**32], np.uint32)


def _mix(words: Words, index: Words) -> tuple[Words, Words]:
    """Both terms of every element. Each operation is one-to-one in ``words``."""
    u32 = np.uint32
    one = words ^ (index * u32(0x9E3779B1) + u32(0x7F4A7C15))
    one = (one ^ (one >> u32(16))) * u32(0x85EBCA6B)
    one = (one ^ (one >> u32(13))) * u32(0xC2B2AE35)
    one = one ^ (one >> u32(16))
    two = (one ^ (index * u32(0x27D4EB2F))) * u32(0x165667B1)
    return one, two ^ (two >> u32(15))


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
