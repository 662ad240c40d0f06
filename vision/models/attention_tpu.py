"""Self-attention as one kernel of a TPU: no array of (B, heads, N, N) leaves the chip.

A step of the kernel has some heads of one example: all their keys and values, and a block of the
queries, whose logits over all keys are in the chip's own memory at once. So the softmax is the
plain one, and the backward pass needs nothing but q, k and v: it computes the weights again, block
by block (Dao et al., FlashAttention, 2022, with rows that are whole).

Arrays stay (B, N, heads x d), as the products before and after have them: a transposition would
go through memory. A head that is narrower than the 128 lanes of a register shares them with its
neighbour, and a product sees zeros in place of the neighbour's lanes: the matrix unit is 128 wide
in any case.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vision.parallel.mesh import batch_parts, on_each_device

_LANES = 128
# Of a block of logits, float32, and of the blocks of all arrays, each there twice.
_LOGITS_BYTES = 2**20
_BLOCKS_BYTES = 6 * 2**20
_VMEM_BYTES = 32 * 2**20
_HIDDEN = -0.7 * float(jnp.finfo(jnp.float32).max)

# Names of the kernels; ``vision.train.flops`` knows what they multiply.
FORWARD, BACKWARD = "attention_forward", "attention_backward"
# Cycles for a register of 8 x 128 logits, and for a head of a step besides. Fitted to the bundles
# that libtpu 0.0.42 schedules for v5e at 50, 77, 196 and 1370 tokens; within 16 %, v5p and v6e too.
_CYCLES = {FORWARD: (5.7, 34.0), BACKWARD: (18.0, 140.0)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the work is cut.

    Attributes:
      heads: of a step of the kernel.
      width: of a head.
      rows: queries of a step; the last block may hang over the end.
      tokens: of an example.
      all_heads: of an example, those of other devices included.
      causal: token i attends only to tokens up to i.
      interpret: on a CPU, for tests.
    """

    heads: int
    width: int
    rows: int
    tokens: int
    all_heads: int
    causal: bool
    interpret: bool

    @property
    def lanes(self) -> int:
        """Lanes of a block: the heads of a step side by side."""
        return self.heads * self.width

    @property
    def steps(self) -> int:
        """Blocks of queries."""
        return -(-self.tokens // self.rows)

    def cycles(self, name: str, batch: int, width: int) -> int:
        """The compiler's own estimates leave kernels out: about how long one takes of (B, N, D)."""
        registers = -(-self.rows // 8) * -(-self.tokens // _LANES)
        each, more = _CYCLES[name]
        return round(batch * width // self.width * self.steps * (each * registers + more))

    def windows(self) -> Iterator[tuple[slice, int]]:
        """For each head the lanes of whole registers that hold it, and where in them it begins."""
        for head in range(self.heads):
            start, end = head * self.width, (head + 1) * self.width
            low = start // _LANES * _LANES
            yield slice(low, min(-(-end // _LANES) * _LANES, self.lanes)), start - low


def plan(
    shape: tuple[int, ...], itemsize: int, parts: int, causal: bool, interpret: bool
) -> Plan | None:
    """How to cut attention of q, k and v (B, N, heads, d); None where that is not possible.

    The most heads whose blocks are small enough. Blocks of a part of the heads are whole registers.

    Args:
      shape: (B, N, heads, d).
      itemsize: bytes of an element.
      parts: devices that share the heads.
      causal, interpret: see ``Plan``.
    """
    _, tokens, all_heads, width = shape
    heads = all_heads // parts
    rows = min(tokens, max(16, _LOGITS_BYTES // (4 * tokens) // 16 * 16))
    for steps in range(1, heads + 1):
        lanes = heads // steps * width
        if heads % steps or (steps > 1 and lanes % _LANES):
            continue
        # q, do and dq; k, v, dk and dv, each twice, and the two sums.
        per_lane = 2 * (3 * rows + 4 * tokens) * itemsize + (tokens > rows) * 8 * tokens
        if lanes * per_lane <= _BLOCKS_BYTES:
            return Plan(heads // steps, width, rows, tokens, all_heads, causal, interpret)
    return None


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    causal: bool = False,
    *,
    name: str = "",
    interpret: bool = False,
) -> jax.Array | None:
    """softmax(q k^T / sqrt(d)) v of (B, N, heads, d) arrays; logits and softmax are float32.

    On a mesh, each device has the kernel for its own examples and heads. None where the arrays
    cannot be cut for it: keys or values of another shape than queries, examples that do not divide
    by the devices, or so many tokens that one head's do not fit.

    Args:
      q, k, v: of the same dtype.
      mask: (B, N) bool, the keys that can be attended to; None for all.
      causal: token i attends only to tokens up to i.
      name: of the output as (B, N, heads x d), for rematerialisation policies.
      interpret: on a CPU, for tests.
    """
    if not q.shape == k.shape == v.shape:
        return None
    examples, parts = batch_parts(q.shape, tensor=2)
    cut = plan(q.shape, q.dtype.itemsize, parts, causal, interpret)
    if cut is None or q.shape[0] % examples:
        return None
    flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    visible = None if mask is None else mask.astype(jnp.int32)[:, None]
    return checkpoint_name(_attention(*flat, visible, cut), name).reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(
    q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array | None, cut: Plan
) -> jax.Array:
    queries, keys = _blocks(cut)
    kernel = functools.partial(_forward, cut=cut, masked=visible is not None)
    operands = (q, k, v, visible)
    return _call(kernel, FORWARD, cut, operands, (queries, keys, keys), (queries,))[0]


def _keep(
    q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array | None, cut: Plan
) -> tuple[jax.Array, tuple[Any, ...]]:
    return _attention(q, k, v, visible, cut), (q, k, v, visible)


def _gradients(
    cut: Plan, kept: tuple[Any, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, visible = kept
    queries, keys = _blocks(cut)
    kernel = functools.partial(_backward, cut=cut, masked=visible is not None)
    sums = () if cut.steps == 1 else (pltpu.VMEM((cut.tokens, cut.lanes), jnp.float32),) * 2
    dq, dk, dv = _call(
        kernel,
        BACKWARD,
        cut,
        (q, k, v, gradient, visible),
        (queries, keys, keys, queries),
        (queries, keys, keys),
        sums,
    )
    return dq, dk, dv, None


_attention.defvjp(_keep, _gradients)


def _blocks(cut: Plan) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """Of queries and of keys, for a grid of examples, groups of heads and blocks of queries."""
    queries = pl.BlockSpec((1, cut.rows, cut.lanes), lambda b, g, i: (b, i, g))
    keys = pl.BlockSpec((1, cut.tokens, cut.lanes), lambda b, g, i: (b, 0, g))
    return queries, keys


def _call(
    kernel: Any,
    name: str,
    cut: Plan,
    operands: tuple[Any, ...],
    in_specs: tuple[pl.BlockSpec, ...],
    out_specs: tuple[pl.BlockSpec, ...],
    scratch: tuple[Any, ...] = (),
) -> tuple[jax.Array, ...]:
    """Runs a kernel on each device's examples and heads."""
    *arrays, visible = operands
    if visible is not None:
        in_specs = (*in_specs, pl.BlockSpec((1, 1, cut.tokens), lambda b, g, i: (b, 0, 0)))

    def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        batch, tokens, width = arrays[0].shape
        products = 2 if name == FORWARD else 5
        blocks = len(in_specs) + len(out_specs) - (visible is not None)
        out = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
        return pl.pallas_call(
            kernel,
            out_shape=(out,) * len(out_specs),
            grid=(batch, width // cut.lanes, cut.steps),
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch,
            interpret=cut.interpret,
            name=name,
            metadata={"estimated_cycles": str(cut.cycles(name, batch, width))},
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary"),
                vmem_limit_bytes=_VMEM_BYTES,
            ),
            cost_estimate=pl.CostEstimate(
                flops=2 * products * batch * tokens * tokens * width,
                transcendentals=batch * tokens * tokens * width // cut.width,
                bytes_accessed=blocks * arrays[0].size * arrays[0].dtype.itemsize,
            ),
        )(*arrays)

    whole = () if visible is None else (visible,)
    return on_each_device(run, arrays, whole, cut.all_heads)


def _product(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    axes = (contracted[:1], contracted[1:])
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)


def _own_lanes(x: jax.Array, start: int, cut: Plan) -> jax.Array:
    """``x`` with zeros in the lanes of other heads."""
    if x.shape[1] == cut.width:
        return x
    return jnp.where(_is_own(x.shape, start, cut), x, jnp.zeros_like(x))


def _is_own(shape: tuple[int, ...], start: int, cut: Plan) -> jax.Array:
    lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return (lane >= start) & (lane < start + cut.width)


def _write(ref: Any, lanes: slice, start: int, values: jax.Array, cut: Plan) -> None:
    """Writes a head's own lanes of ``values``; the heads before have written theirs."""
    values = values.astype(ref.dtype)
    if values.shape[1] != cut.width and start:
        values = jnp.where(_is_own(values.shape, start, cut), values, ref[0, :, lanes])
    ref[0, :, lanes] = values


def _exponentials(
    q: jax.Array, k: jax.Array, visible: jax.Array | None, first: Any, cut: Plan
) -> tuple[jax.Array, jax.Array]:
    """exp(logits - their maximum), (rows, N) float32, and one over the sums, (rows, 1)."""
    logits = _product(q, k, (1, 1))
    if visible is not None:
        logits = jnp.where(visible != 0, logits, _HIDDEN)
    if cut.causal:
        row = first + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)
        column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
        logits = jnp.where(column <= row, logits, _HIDDEN)
    highest = jnp.max(logits, axis=1, keepdims=True)
    exponentials = jnp.exp2((logits - highest) * (cut.width**-0.5 * math.log2(math.e)))
    return exponentials, 1 / jnp.sum(exponentials, axis=1, keepdims=True)


def _forward(q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any, cut: Plan, masked: bool) -> None:
    visible, (o_ref,) = (refs[0][0], refs[1:]) if masked else (None, refs)
    first = pl.program_id(2) * cut.rows
    for lanes, start in cut.windows():
        q = _own_lanes(q_ref[0, :, lanes], start, cut)
        weights, scale = _exponentials(q, k_ref[0, :, lanes], visible, first, cut)
        v = v_ref[0, :, lanes]
        out = _product(weights.astype(v.dtype), v, (1, 0)) * scale
        _write(o_ref, lanes, start, out, cut)


def _backward(
    q_ref: Any, k_ref: Any, v_ref: Any, do_ref: Any, *refs: Any, cut: Plan, masked: bool
) -> None:
    visible, outputs = (refs[0][0], refs[1:]) if masked else (None, refs)
    dq_ref, dk_ref, dv_ref, *sums = outputs
    step = pl.program_id(2)
    first = step * cut.rows
    if sums:

        @pl.when(step == 0)
        def _first() -> None:
            for total in sums:
                total[...] = jnp.zeros_like(total)

    for lanes, start in cut.windows():
        q = _own_lanes(q_ref[0, :, lanes], start, cut)
        do = _own_lanes(do_ref[0, :, lanes], start, cut)
        if cut.tokens % cut.rows:  # what hangs over the end may be anything
            row = first + jax.lax.broadcasted_iota(jnp.int32, q.shape, 0)
            q = jnp.where(row < cut.tokens, q, jnp.zeros_like(q))
            do = jnp.where(row < cut.tokens, do, jnp.zeros_like(do))
        k, v = k_ref[0, :, lanes], v_ref[0, :, lanes]
        weights, scale = _exponentials(q, k, visible, first, cut)
        # The scale of the softmax on the narrow side of the products, not on (rows, N) weights.
        do = (do.astype(jnp.float32) * scale).astype(do.dtype)
        dv = _product(weights.astype(do.dtype), do, (0, 0))
        dweights = _product(do, v, (1, 1))
        mean = jnp.sum(weights * dweights, axis=1, keepdims=True) * scale
        dlogits = (weights * (dweights - mean)).astype(q.dtype)
        dq = _product(dlogits, k, (1, 0)) * cut.width**-0.5
        dk = _product(dlogits, q, (0, 0)) * cut.width**-0.5
        _write(dq_ref, lanes, start, dq, cut)
        if cut.steps == 1:
            _write(dk_ref, lanes, start, dk, cut)
            _write(dv_ref, lanes, start, dv, cut)
            continue
        # q and do have zeros in the lanes of other heads, and so have these two.
        for total, part in zip(sums, (dk, dv), strict=True):
            total[:, lanes] += part
    if sums:

        @pl.when(step == cut.steps - 1)
        def _last() -> None:
            for ref, total in zip((dk_ref, dv_ref), sums, strict=True):
                ref[0] = total[...].astype(ref.dtype)
