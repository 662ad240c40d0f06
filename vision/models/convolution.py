"""Convolutions and max pooling in a form that is fast on the current backend.

``convolve`` takes the place of ``jax.lax.conv_general_dilated`` in ``nn.Conv(...,
conv_general_dilated=convolve)``, which leaves names and shapes of parameters as they are. On GPU
and TPU, and wherever arrays are split over devices, it is that function. On one CPU device
XLA computes the gradient of a kernel, everything depthwise and the gradient of max pooling in
plain loops; here they are matrix products and sums of shifted arrays, equal to rounding.
``bench.convolution`` measures each shape.

Each form is linear in ``x`` and in the kernel, and written so that what ``jax.vjp`` derives from
it is the fast computation of the gradient. No rule is specific to reverse mode: forward mode and
higher derivatives work as they do for ``lax.conv_general_dilated``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from vision.parallel.mesh import platform
from vision.train.flops import PRODUCTS

# What a rematerialisation policy calls results that have a derivative rule: it sees no further.
CONVOLUTION = "convolution"

Pads = tuple[tuple[int, int], tuple[int, int]]
Pair = tuple[int, int]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_SHORT = 8192  # rows up to which a transposed copy pays: XLA multiplies it by faster code
_WIDE = 256  # channels from which a product is faster than XLA's convolution
_ROWS = 4096  # of one matrix product for a kernel's gradient: its operands stay in the cache


def convolve(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """``jax.lax.conv_general_dilated`` of the same arguments, to rounding.

    The fast forms are for float32 images of layout NHWC on one CPU device, without dilation, and
    either with one group or depthwise with stride 1. The choice is made while tracing, by the
    current mesh and, without one, by ``jax.default_backend()``.
    """
    general = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    if not (_alone_on_cpu() and lhs.ndim == 4 and lhs.dtype == rhs.dtype == jnp.float32):
        return general(lhs, rhs)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if layout != lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT):
        return general(lhs, rhs)
    if any(n != 1 for n in (*(lhs_dilation or ()), *(rhs_dilation or ()))):
        return general(lhs, rhs)

    height, width, per_group, features = rhs.shape
    strides = (window_strides[0], window_strides[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], (height, width), strides, padding)
    pads = tuple((low, high) for low, high in padding)
    if min(low for pad in pads for low in pad) < 0:
        return general(lhs, rhs)
    if feature_group_count == 1:
        if (height, width) == (1, 1) and pads == ((0, 0), (0, 0)):
            out = _product(lhs[:, :: strides[0], :: strides[1]], rhs[0, 0])
        elif (height, width) == strides and pads == ((0, 0), (0, 0)):
            out = _patches(lhs, rhs)
        else:
            out = _dense(lhs, rhs, strides, pads)
    elif per_group == 1 and features == feature_group_count and strides == (1, 1):
        out = _depthwise(lhs, rhs, pads)
    else:
        return general(lhs, rhs)
    return checkpoint_name(out, CONVOLUTION)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    """(B, h, w, C) maxima of windows, as ``flax.linen.max_pool``.

    Of equal values the first in the window gets the gradient.
    """
    if not (_alone_on_cpu() and x.ndim == 4):
        return _general_max_pool(x, window, strides, pads)
    return functools.reduce(jnp.maximum, _taps(x, -jnp.inf, window, strides, pads))


def _max_pool_jvp(window: Pair, strides: Pair, pads: Pads, primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    if not (_alone_on_cpu() and x.ndim == 4):
        return jax.jvp(lambda x: _general_max_pool(x, window, strides, pads), (x,), (dx,))
    best = max_pool(x, window, strides, pads)

    def along(x: jax.Array, best: jax.Array, dx: jax.Array) -> jax.Array:
        undecided, out = jnp.ones(best.shape, bool), jnp.zeros_like(best)
        values = _taps(x, -jnp.inf, window, strides, pads)
        for value, change in zip(values, _taps(dx, 0, window, strides, pads), strict=True):
            chosen = undecided & (value == best)
            undecided &= ~chosen
            out += jnp.where(chosen, change, 0)
        return out

    return best, _recomputed(along)(x, best, dx)


max_pool.defjvp(_max_pool_jvp)


def _general_max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _taps(x: jax.Array, fill: float, window: Pair, strides: Pair, pads: Pads) -> list[jax.Array]:
    """The input of each position of a window."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    shape = _output(x.shape[1:3], window, strides)
    starts = [(i, j) for i in range(window[0]) for j in range(window[1])]
    return [_window(x, start, shape, strides) for start in starts]


def _alone_on_cpu() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return platform() == "cpu" and (mesh.empty or mesh.size == 1)


def _output(size: Sequence[int], kernel: Sequence[int], strides: Pair) -> Pair:
    height, width = ((n - k) // s + 1 for n, k, s in zip(size, kernel, strides, strict=True))
    return height, width


def _window(x: jax.Array, start: Pair, shape: Pair, strides: Pair) -> jax.Array:
    """(B, *shape, C): the input of one position of the kernel, ``start`` from the corner."""
    (top, left), (height, width) = start, shape
    limits = (top + (height - 1) * strides[0] + 1, left + (width - 1) * strides[1] + 1)
    return lax.slice(
        x, (0, top, left, 0), (x.shape[0], *limits, x.shape[3]), (1, strides[0], strides[1], 1)
    )


def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """(..., C) times (C, D)."""
    # One dimension of rows: of several, XLA writes a transposed copy for the matrix's gradient.
    rows = x.reshape(-1, x.shape[-1])
    return _multiply(rows, matrix).reshape(*x.shape[:-1], matrix.shape[1])


@jax.custom_jvp
def _multiply(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return x @ matrix


def _multiply_jvp(primals: Any, tangents: Any) -> Any:
    return _multiply(*primals), _tangent(primals, tangents, _multiply, _by_matrix)


_multiply.defjvp(_multiply_jvp, symbolic_zeros=True)


def _by_matrix(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """As ``x @ matrix``; transposed, it multiplies transposed copies where ``x`` is short."""
    rows = x.shape[0]
    if rows > _SHORT or rows % 2:
        return x @ matrix

    def half(x: jax.Array) -> jax.Array:
        copy = lax.optimization_barrier(x.T)
        return lax.dot_general(copy, matrix, (((0,), (0,)), ((), ())))

    # In two halves, since what goes into a loop is computed once: else XLA computes anew, for
    # every copy and in the copy's order, all sums and activations that led to x.
    halves = lax.map(_recomputed(half), x.reshape(2, rows // 2, -1))
    return halves.reshape(rows, -1)


def _patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution whose windows touch without overlapping."""
    height, width = kernel.shape[:2]
    rows, columns = x.shape[1] // height, x.shape[2] // width
    x = _space_to_depth(x[:, : rows * height, : columns * width], (height, width))
    return _product(x, kernel.reshape(-1, kernel.shape[-1]))


def _space_to_depth(x: jax.Array, block: Pair) -> jax.Array:
    """(B, h, w, C) to (B, h/block, w/block, block * block * C)."""
    batch, height, width, channels = x.shape
    (a, b), rows, columns = block, height // block[0], width // block[1]
    x = x.reshape(batch, rows, a, columns, b, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, a * b * channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _dense(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    if x.shape[-1] < _WIDE:
        return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)
    return _product(_unfold(x, kernel, strides, pads), kernel.reshape(-1, kernel.shape[-1]))


def _unfold(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    """(B, h, w, C times the kernel's area): the receptive field of each position of the result."""
    window = (kernel.shape[0], kernel.shape[1])
    return jnp.concatenate(_taps(x, 0, window, strides, pads), axis=-1)


def _dense_jvp(strides: Pair, pads: Pads, primals: Any, tangents: Any) -> Any:
    (x, kernel), (dx, dkernel) = primals, tangents
    by_x = functools.partial(_dense, strides=strides, pads=pads)
    return _dense(x, kernel, strides, pads), _tangent(
        (x, kernel), (dx, dkernel), by_x, lambda x, d: _by_kernel(x, d, strides, pads)
    )


def _tangent(primals: Any, tangents: Any, by_x: Any, by_kernel: Any) -> Any:
    """Product rule, skipping tangents that are symbolic zeros."""
    (x, kernel), (dx, dkernel) = primals, tangents
    zero = jax.custom_derivatives.SymbolicZero
    if isinstance(dkernel, zero):
        return by_x(dx, kernel)
    out = _recomputed(by_kernel)(x, dkernel)
    return out if isinstance(dx, zero) else out + by_x(dx, kernel)


def _recomputed(function: Any) -> Any:
    """Keeps only the arguments of ``function`` for the backward pass, and recomputes the rest.

    Rearranged images are several times as large as images.
    """
    return jax.checkpoint(function, prevent_cse=False)


_dense.defjvp(_dense_jvp, symbolic_zeros=True)


def _by_kernel(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    """The convolution as products with the kernel's rows, some images at a time.

    Transposed, it is the gradient of the kernel as products of images that are in the cache.
    """
    if x.shape[-1] >= _WIDE:
        windows = _unfold(x, kernel, strides, pads)
        rows = windows.reshape(-1, windows.shape[-1])
        out = _by_matrix(rows, kernel.reshape(-1, kernel.shape[-1]))
        return out.reshape(*windows.shape[:-1], kernel.shape[-1])
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    shape = _output(x.shape[1:3], kernel.shape[:2], strides)
    if max(strides) > 1 and x.shape[-1] < 8:
        # Few channels make short rows to copy: gather what one stride covers.
        size = [math.ceil(n / s) for n, s in zip(kernel.shape[:2], strides, strict=True)]
        (a, b), (c, d) = strides, size
        kernel = jnp.pad(
            kernel,
            ((0, a * c - kernel.shape[0]), (0, b * d - kernel.shape[1]), (0, 0), (0, 0)),
        )
        kernel = kernel.reshape(c, a, d, b, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5)
        kernel = kernel.reshape(c, d, -1, kernel.shape[-1])
        needed = ((shape[0] + c - 1) * a, (shape[1] + d - 1) * b)
        short = [max(0, n - m) for n, m in zip(needed, x.shape[1:3], strict=True)]
        x = jnp.pad(x, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
        x = _space_to_depth(x[:, : needed[0], : needed[1]], strides)
        strides = (1, 1)
    height, width, channels, features = kernel.shape
    rows = kernel.reshape(height, width * channels, features)

    def some(x: jax.Array, rows: jax.Array) -> jax.Array:
        every = (x.shape[1], shape[1])
        x = jnp.concatenate(
            [_window(x, (0, j), every, (1, strides[1])) for j in range(width)], axis=-1
        )
        parts = [
            _window(x, (i, 0), shape, (strides[0], 1)).reshape(-1, width * channels) @ rows[i]
            for i in range(height)
        ]
        return sum(parts[1:], parts[0])

    batch = x.shape[0]
    fits = max(1, _ROWS // (shape[0] * shape[1]))
    together = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fits)
    x = x.reshape(batch // together, together, *x.shape[1:])
    out = lax.map(lambda x: _recomputed(some)(x, rows), x)
    return out.reshape(batch, *shape, features)


def _times(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x * kernel``, one multiplication and addition of a convolution per element."""
    with jax.named_scope(PRODUCTS):
        return x * kernel


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    shape = _output(x.shape[1:3], kernel.shape[:2], (1, 1))
    parts = [
        _times(_window(x, (i, j), shape, (1, 1)), kernel[i, j, 0])
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return sum(parts[1:], parts[0])


def _depthwise_jvp(pads: Pads, primals: Any, tangents: Any) -> Any:
    return _depthwise(*primals, pads), _tangent(
        primals,
        tangents,
        lambda dx, kernel: _depthwise_by_image(dx, kernel, pads),
        lambda x, dkernel: _depthwise_by_kernel(x, dkernel, pads),
    )


_depthwise.defjvp(_depthwise_jvp, symbolic_zeros=True)


def _depthwise_by_image(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """As ``_depthwise``; transposed, it is a sum of shifted gradients in one pass."""
    (top, bottom), (left, right) = pads
    height, width = kernel.shape[:2]
    none = (0, 0, 0)
    parts = [
        lax.pad(
            _times(x, kernel[i, j, 0]),
            jnp.zeros((), x.dtype),
            (none, (height - 1 - i, i, 0), (width - 1 - j, j, 0), none),
        )
        for i in range(height)
        for j in range(width)
    ]
    full = sum(parts[1:], parts[0])
    low, high = (height - 1 - top, width - 1 - left), (height - 1 - bottom, width - 1 - right)
    crop = [(-a, -b, 0) for a, b in zip(low, high, strict=True)]
    return lax.pad(full, jnp.zeros((), x.dtype), (none, *crop, none))


def _depthwise_by_kernel(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """As ``_depthwise``; transposed, it sums products of kernel's size, row by row."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    batch, channels = x.shape[0], x.shape[-1]
    height, width = kernel.shape[:2]
    rows, columns = _output(x.shape[1:3], (height, width), (1, 1))
    kernels = jnp.broadcast_to(kernel[:, :, 0], (batch, height, width, channels))

    def row(i: jax.Array, kernels: jax.Array) -> jax.Array:
        band = lax.dynamic_slice_in_dim(x, i, height, axis=1)
        windows = [_times(band[:, :, j : j + width], kernels) for j in range(columns)]
        return jnp.stack([window.sum((1, 2)) for window in windows], axis=1)

    return jnp.moveaxis(lax.map(lambda i: _recomputed(row)(i, kernels), jnp.arange(rows)), 0, 1)
