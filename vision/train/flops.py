"""Model FLOPs of traced functions, peak FLOP/s of devices, and the ratio of both (MFU).

A FLOP is a multiplication or an addition in a matrix product or a convolution; one
multiply-accumulate is two. Everything else (norms, softmax, the optimizer) is not counted, as is
usual (Chowdhery et al., "PaLM", 2022, appendix B).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxpr_as_fun

from vision.parallel import chips, jax_internals

# A multiplication of arrays in a ``jax.named_scope`` of this name is one of a matrix product or a
# convolution that is computed element by element: it counts, and so does the addition after it.
PRODUCTS = "products_by_element"


def count(fn: Callable[..., Any], *args: Any) -> int:
    """FLOPs of one call ``fn(*args)``, on all devices together; arrays or their shapes suffice.

    The function is traced, not run. A scan counts its length times, a ``cond`` its dearest
    branch, a ``while`` loop one turn, a ``shard_map`` once per device. What no result depends on
    is not counted. A convolution counts every tap at every position, padding included, as
    published figures do; holes of strided gradients are not work, so that each of the two
    gradients costs what the convolution did. A convolution that is computed element by element
    counts where its code is in the scope ``PRODUCTS``. Of hand-written kernels cuDNN's attention
    and ours for TPUs are known; others count nothing.

    Recomputation under ``jax.checkpoint`` is counted where ``fn`` itself differentiates; MFU
    leaves it out: differentiate ``without_recomputation(loss)``.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return _count(jaxpr, [True] * len(jaxpr.outvars))


def without_recomputation(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` with every ``jax.checkpoint`` in it keeping all its intermediates."""

    @functools.wraps(fn)
    def kept(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
        results = jaxpr_as_fun(jax_internals.keep_all_intermediates(closed))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return kept


def _count(jaxpr: Jaxpr, used: list[bool]) -> int:
    is_variable = jax_internals.is_variable
    live = {v for v, is_used in zip(jaxpr.outvars, used, strict=True) if is_used and is_variable(v)}
    total = 0
    for eqn in reversed(jaxpr.eqns):
        used_outputs = [v in live for v in eqn.outvars]
        if any(used_outputs) or eqn.effects:
            live.update(v for v in eqn.invars if is_variable(v))
            total += _equation(eqn, used_outputs)
    return total


def _equation(eqn: Any, used_outputs: list[bool]) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        return 2 * _dot(eqn)
    if name == "conv_general_dilated":
        return 2 * _convolution(eqn)
    if name == "mul" and PRODUCTS in jax_internals.scopes(eqn):
        return 2 * math.prod(eqn.outvars[0].aval.shape)
    if name.startswith("dot_product_attention_"):
        return 2 * _attention(eqn)
    if name == "pallas_call":
        return 2 * _attention_kernel(eqn)
    if name == "cond":
        return max(_count(branch, used_outputs) for branch in jax_internals.branches(params))
    if (call := jax_internals.called(eqn)) and call[0] == "sum_by_product":
        return 0
    times = 1
    if name == "scan":
        loop = jax_internals.scan(params)
        times = loop.length
        # What is carried has the shape that it has inside; what is stacked has one axis more.
        inside: Any = loop.body.jaxpr.outvars
        used_outputs = [
            is_used or outer.aval.shape == inner.aval.shape
            for is_used, outer, inner in zip(used_outputs, eqn.outvars, inside, strict=True)
        ]
    elif name == "shard_map":
        times = jax_internals.shard_map_devices(params)
    total = 0
    for inner in jax_internals.inner_programs(params):
        same = len(inner.outvars) == len(used_outputs)
        total += _count(inner, used_outputs if same else [True] * len(inner.outvars))
    return times * total


def _dot(eqn: Any) -> int:
    contracted, _ = jax_internals.contracted_axes(eqn.params)
    left = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(eqn: Any) -> int:
    left, right, out = (v.aval.shape for v in (*eqn.invars, eqn.outvars[0]))
    numbers = jax_internals.convolution_axes(eqn.params)
    batch, features, *out_axes = numbers.out_spec
    _, contracted, *right_axes = numbers.rhs_spec
    macs = out[batch] * out[features] * right[contracted]
    for i, j, k in zip(numbers.lhs_spec[2:], right_axes, out_axes, strict=True):
        # Input, taps and output of a convolution change places in its gradients: the two
        # smallest of the three are what meets, whichever of them this is.
        sizes = sorted((left[i], right[j], out[k]))
        macs *= sizes[0] * sizes[1]
    return macs


def _attention_kernel(eqn: Any) -> int:
    """Of ``vision.models.attention_tpu``; other kernels count nothing."""
    products = {"attention_forward": 2, "attention_backward": 4}
    times = products.get(jax_internals.kernel_name(eqn.params), 0)
    if not times:
        return 0
    batch, tokens, width = eqn.invars[0].aval.shape
    # The backward pass computes the weights again, which is no model FLOP.
    return times * batch * tokens * tokens * width


def _attention(eqn: Any) -> int:
    query, key = (v.aval.shape for v in eqn.invars[:2])
    heads_first = jax_internals.attention_is_heads_first(eqn.params)
    macs = 2 * math.prod(query) * key[2 if heads_first else 1]
    # The backward pass multiplies twice as much; that it computes the weights again is no
    # model FLOP.
    return 2 * macs if "bwd" in eqn.primitive.name else macs


def peak_flops(device_kind: str, dtype: str, precision: str | None = None) -> float | None:
    """Dense peak of one JAX device in FLOP/s; None for CPUs and for what the table lacks.

    Args:
      device_kind: of a ``jax.Device``.
      dtype: of the operands, ``bfloat16``, ``float16`` or ``float32``.
      precision: ``jax.default_matmul_precision`` of the run. Unless it is ``highest`` or
        ``float32``, float32 operands are multiplied in TF32 where an NVIDIA GPU has it, and in
        bfloat16 on a TPU; the peak is that of the products.

    Raises:
      ValueError: another dtype.
    """
    if dtype not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"dtype={dtype!r}, but it is one of 'bfloat16', 'float16', 'float32'")
    chip = chips.find(device_kind)
    if chip is None:
        return None
    plain = precision in ("highest", "float32")
    tera = {
        "bfloat16": chip.bfloat16,
        "float16": chip.float16,
        "float32": chip.float32 if plain else chip.tf32 or chip.float32 or chip.bfloat16,
    }[dtype]
    return None if tera is None else tera * 1e12


def mfu(
    flops_per_step: int,
    seconds_per_step: float,
    devices: Iterable[Any],
    dtype: str,
    precision: str | None = None,
) -> float | None:
    """Model FLOPs utilisation in [0, 1]: achieved model FLOP/s over the devices' peak.

    Args:
      flops_per_step: of the global batch, without recomputation: ``Step.flops``.
      seconds_per_step: wall time.
      devices: all that share the step, of all processes.
      dtype: see ``peak_flops``; of the model's computation.
      precision: see ``peak_flops``.

    Returns None where a device's peak is not known.
    """
    peaks = [peak_flops(device.device_kind, dtype, precision) for device in devices]
    known = [peak for peak in peaks if peak is not None]
    if len(known) < len(peaks) or not known:
        return None
    return flops_per_step / seconds_per_step / sum(known)
