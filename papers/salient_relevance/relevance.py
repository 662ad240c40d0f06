"""Layer-wise relevance propagation through any traceable function, without editing a model.

Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
Propagation, 2015. An output R = f(x) is shared out among the inputs, layer by layer, in proportion
to what they contributed. Of a layer with z_ij = x_i w_ij and y_j = sum_i z_ij + b_j

    epsilon      R_i = sum_j z_ij R_j / (y_j + epsilon sign y_j), so that biases absorb their share
    alpha-beta   R_i = sum_j (alpha z_ij+ / sum_k z_kj+ - beta z_ij- / sum_k z_kj-) R_j, with
                 beta = alpha - 1 and biases without a share; alpha 1 is the z+ rule

and through an activation everything passes. Written as R = a c, with one number c per activation a,
this is a backward pass: at sums, shapes, pooling and biases c goes the way of the gradient; at an
activation f it is multiplied by f(a) / a instead of f'(a); only products have a rule of their own.
With epsilon 0 and ReLU f(a) / a is f'(a), and R is the gradient times the input.

Products of two activations are those of norms, gates and attention. One factor of them says how
much of the other passes (what a softmax, a sigmoid or the root of a variance made): it counts as a
constant, and the other gets all (Ali et al., XAI for Transformers, 2022). Where both or neither are
of that kind each gets half. Nothing is lost either way.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vision.blocks.tape import Cotangents, Operation, Tape, Value, record, vjp
from vision.config.errors import UserError
from vision.config.ranges import Ge, NonNegative, checked
from vision.parallel import jax_internals

LayerRule = Literal["epsilon", "alpha_beta"]

# Linear, or a choice whose winner gets everything.
_LINEAR = frozenset(
    (
        *("add", "add_any", "sub", "neg", "reduce_sum", "reduce_window_sum", "cumsum"),
        *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "rev", "copy"),
        *("slice", "dynamic_slice", "dynamic_update_slice", "pad", "concatenate", "split"),
        *("gather", "scatter", "scatter-add", "select_n", "convert_element_type", "name"),
        *("reduce_precision", "optimization_barrier", "sharding_constraint"),
        *("reduce_max", "reduce_min", "reduce_window_max"),
    )
)
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated"))
_ACTIVATIONS = frozenset(("tanh", "logistic", "erf", "clamp", "abs", "integer_pow", "square"))
_GATES = frozenset(
    (
        *("exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "erf", "erfc", "erf_inv"),
        *("rsqrt", "sqrt", "cbrt", "pow", "integer_pow", "square", "sin", "cos"),
    )
)
# Between a product and its bias.
_SAME_ORDER = frozenset(
    ("reshape", "squeeze", "expand_dims", "name", "convert_element_type", "sharding_constraint")
)


class RelevanceError(UserError):
    """An operation that no rule says how relevance passes through."""


@dataclasses.dataclass(frozen=True)
@checked
class Lrp:
    """Rules of layers with parameters.

    A layer that gives one vector per example is dense; one that does the same at many places
    (convolutions, and a transformer's layers on tokens) is a convolution.

    Attributes:
      dense, convolution: ``epsilon`` or ``alpha_beta``.
      epsilon: 0 or more.
      alpha: 1 or more.
    """

    dense: LayerRule = "epsilon"
    convolution: LayerRule = "epsilon"
    epsilon: NonNegative[float] = 1e-9
    alpha: Annotated[float, Ge(1)] = 1.0


def relevance(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    weights: jax.Array,
    rules: Lrp = Lrp(),
) -> jax.Array:
    """How much every element of ``x`` (B, ...) contributed to ``sum(weights * function(x))``.

    Args:
      function: (B, ...) to (B, K), rows by themselves.
      weights: (B, K): 1 at the class that is asked about, 0 elsewhere.

    Raises:
      RelevanceError: an operation on the way that no rule is known for.
    """
    tape = record(function, x)
    gates, readers = _gates(tape), _readers(tape)
    rule = functools.partial(_rule, rules=rules, rows=len(x), gates=gates, readers=readers)
    return x * tape.pull(weights, rule)


def _gates(tape: Tape) -> set[Value]:
    """Values that say how much of others passes: made by such an operation, or of such only."""
    found: set[Value] = set()
    for operation in tape.operations:
        inputs = [operation.inputs[i] for i in operation.dependent]
        if operation.name in _GATES or all(value in found for value in inputs):
            found.update(operation.outputs)
    return found


def _readers(tape: Tape) -> dict[Value, list[Operation]]:
    found: dict[Value, list[Operation]] = {}
    for operation in tape.operations:
        for i in operation.dependent:
            found.setdefault(operation.inputs[i], []).append(operation)
    return found


def _rule(
    operation: Operation,
    cotangents: Cotangents,
    rules: Lrp,
    rows: int,
    gates: set[Value],
    readers: dict[Value, list[Operation]],
) -> Cotangents:
    name, places = operation.name, operation.dependent
    if name in _LINEAR:
        return vjp(operation, cotangents)
    if name in _PRODUCTS:
        if len(places) > 1:
            return _shared(operation, cotangents, gates)
        if name == "mul":
            return vjp(operation, cotangents)
        after = _with_bias(operation.outputs[0], readers)
        kind = rules.dense if _is_dense(operation, rows) else rules.convolution
        return _layer(operation, cotangents[0], after, kind, rules)
    if name == "div" and 0 in places:
        return vjp(operation, cotangents, [0])
    if name in ("max", "min") and len(places) == 2:
        one, two = (value.array for value in operation.inputs)
        first = one >= two if name == "max" else one <= two
        [c] = cotangents
        return [jnp.where(first, c, 0), jnp.where(first, 0, c)]
    if name in _ACTIVATIONS or name in ("max", "min"):
        [place] = places
        before, [after] = operation.inputs[place].array, operation.outputs
        passed: Cotangents = [None] * len(operation.inputs)
        passed[place] = cotangents[0] * _ratio(after.array, before)
        return passed
    raise RelevanceError(
        f"relevance reaches the operation {name!r}, which no rule is known for: explain an output "
        "before it, or add a rule to papers/salient_relevance/relevance.py"
    )


def _shared(operation: Operation, cotangents: Cotangents, gates: set[Value]) -> Cotangents:
    """A product of two activations: gates count as constants."""
    signals = [i for i in operation.dependent if operation.inputs[i] not in gates]
    taking = signals if len(signals) == 1 else operation.dependent
    part = [x / len(taking) for x in cotangents]
    return vjp(operation, part, taking)


def _with_bias(product: Value, readers: dict[Value, list[Operation]]) -> jax.Array:
    """The layer's result: the product and, if a constant is added to it next, that too."""
    value = product
    while len(reading := readers.get(value, [])) == 1:
        [operation] = reading
        if operation.name == "add" and len(operation.dependent) == 1:
            value = operation.outputs[0]
            break
        if operation.name not in _SAME_ORDER:
            return product.array
        value = operation.outputs[0]
    else:
        return product.array
    same = value.array.size == product.array.size
    return value.array.reshape(product.array.shape) if same else product.array


def _layer(
    operation: Operation, c: jax.Array, after: jax.Array, kind: LayerRule, rules: Lrp
) -> Cotangents:
    """A product with parameters; ``after`` is what the layer made of it."""
    if kind == "epsilon":
        sign = jnp.where(after < 0, -1.0, 1.0).astype(after.dtype)
        return vjp(operation, [c * _ratio(after, after + rules.epsilon * sign)])
    [place] = operation.dependent
    x, weight = operation.inputs[place].array, operation.inputs[1 - place].array
    up, down = jnp.maximum(weight, 0), jnp.minimum(weight, 0)

    def with_weight(part: jax.Array) -> Operation:
        inputs = [Value(part), Value(part)]
        inputs[place] = Value(x, True)
        return dataclasses.replace(operation, inputs=tuple(inputs))

    def total(one: jax.Array, two: jax.Array) -> jax.Array:
        """What positive inputs make with ``one`` and negative ones with ``two``."""
        parts = []
        for of, part in ((jnp.maximum(x, 0), one), (jnp.minimum(x, 0), two)):
            arrays = [part, part]
            arrays[place] = of
            parts.append(operation.run(*arrays)[0])
        return parts[0] + parts[1]

    share = rules.alpha * _ratio(c * after, total(up, down))
    passed = [vjp(with_weight(part), [share])[place] for part in (up, down)]
    if rules.alpha > 1:
        against = (rules.alpha - 1) * _ratio(c * after, total(down, up))
        passed[0] -= vjp(with_weight(down), [against])[place]
        passed[1] -= vjp(with_weight(up), [against])[place]
    found: Cotangents = [None, None]
    found[place] = jnp.where(x >= 0, passed[0], passed[1])
    return found


def _is_dense(operation: Operation, rows: int) -> bool:
    """Whether the result has one place per example, of ``rows`` examples."""
    if operation.name == "conv_general_dilated":
        out = operation.outputs[0].array.shape
        axes = jax_internals.convolution_axes(operation.params)
        return math.prod(out[i] for i in axes.out_spec[2:]) == 1
    contracting = jax_internals.contracted_axes(operation.params)
    [place] = operation.dependent
    shape = operation.inputs[place].array.shape
    return math.prod(n for i, n in enumerate(shape) if i not in contracting[place]) == rows


def _ratio(one: jax.Array, two: jax.Array) -> jax.Array:
    """``one / two``, and 0 where ``two`` is."""
    return jnp.where(two == 0, 0, one / jnp.where(two == 0, 1, two))
