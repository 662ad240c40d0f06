"""Layer-wise relevance propagation through any traceable function, without editing a model.

Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
Propagation, 2015. An output R = f(x) is distributed over the inputs, layer by layer, in proportion
to their contributions. For a layer with z_ij = x_i w_ij and y_j = sum_i z_ij + b_j

    epsilon      R_i = sum_j z_ij R_j / (y_j + epsilon sign y_j), so that biases absorb their share
    alpha-beta   R_i = sum_j (alpha z_ij+ / sum_k z_kj+ - beta z_ij- / sum_k z_kj-) R_j, with
                 beta = alpha - 1 and biases without a share; alpha 1 is the z+ rule

and activations pass relevance unchanged. A BatchNorm after a product, and a layer scale, count as
folded into the product's weights and bias: the mean and the shift of the norm are then part of b_j,
which absorbs its share with epsilon and has none with alpha-beta. Written as R = a c, with one
number c per activation a, this is a backward pass: at sums, reshapes, pooling and biases c is
propagated like the gradient; at an activation f it is multiplied by f(a) / a instead of f'(a); only
products have special rules.
With epsilon 0 and ReLU f(a) / a is f'(a), and R is the gradient times the input.

Products of two activations occur in norms, gates and attention. If one factor is a gate (the output
of a softmax, a sigmoid or the root of a variance), it is treated as a constant, and the other gets
all relevance (Ali et al., XAI for Transformers, 2022). If both or neither are gates, each gets
half. The total relevance is conserved in all cases.
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

# Linear operations, and selections, whose selected input gets all relevance.
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
    """An operation without a rule for relevance."""


@dataclasses.dataclass(frozen=True)
@checked
class Lrp:
    """Rules of layers with parameters.

    A layer with one output vector per example is dense; one that is applied at many positions
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
    """Relevance of every element of ``x`` (B, ...) for ``sum(weights * function(x))``.

    Args:
      function: (B, ...) to (B, K), independent rows.
      weights: (B, K): 1 at the class to explain, 0 elsewhere.

    Raises:
      RelevanceError: an operation without a rule on the path.
    """
    tape = record(function, x)
    gates, readers = _gates(tape), _readers(tape)
    rule = functools.partial(_rule, rules=rules, rows=len(x), gates=gates, readers=readers)
    return x * tape.pull(weights, rule)


def magnitude(
    asked: Callable[[jax.Array], jax.Array], images: jax.Array, rules: Lrp = Lrp()
) -> jax.Array:
    """The relevance of every pixel for one scalar per image: |R|, scaled to 0..1.

    Args:
      asked: (B, H, W, C) to (B,).
      images: (B, H, W, C).

    Returns:
      (B, H, W, C) in 0..1, from the least to the most relevant of an image.

    Raises:
      RelevanceError: an operation without a rule on the path.
    """
    ones = jnp.ones((len(images), 1), jnp.float32)
    size = jnp.abs(relevance(lambda x: asked(x)[:, None], images, ones, rules))
    axes = (1, 2, 3)
    low, high = size.min(axes, keepdims=True), size.max(axes, keepdims=True)
    return (size - low) / jnp.where(high > low, high - low, 1)


def _gates(tape: Tape) -> set[Value]:
    """Gates: outputs of gate operations, and of operations on gates only."""
    gates: set[Value] = set()
    for operation in tape.operations:
        inputs = [operation.inputs[i] for i in operation.dependent]
        if operation.name in _GATES or all(value in gates for value in inputs):
            gates.update(operation.outputs)
    return gates


def _readers(tape: Tape) -> dict[Value, list[Operation]]:
    readers: dict[Value, list[Operation]] = {}
    for operation in tape.operations:
        for i in operation.dependent:
            readers.setdefault(operation.inputs[i], []).append(operation)
    return readers


def _rule(
    operation: Operation,
    cotangents: Cotangents,
    rules: Lrp,
    rows: int,
    gates: set[Value],
    readers: dict[Value, list[Operation]],
) -> Cotangents:
    name, dependent = operation.name, operation.dependent
    if name in _LINEAR:
        return vjp(operation, cotangents)
    if name in _PRODUCTS:
        if len(dependent) > 1:
            return _shared(operation, cotangents, gates)
        if name == "mul":
            return vjp(operation, cotangents)
        layer = _affine(operation.outputs[0], readers)
        kind = rules.dense if _is_dense(operation, rows) else rules.convolution
        return _layer(operation, cotangents[0], layer, kind, rules)
    if name == "div" and 0 in dependent:
        return vjp(operation, cotangents, [0])
    if name in ("max", "min") and len(dependent) == 2:
        left, right = (value.array for value in operation.inputs)
        selected = left >= right if name == "max" else left <= right
        [cotangent] = cotangents
        return [jnp.where(selected, cotangent, 0), jnp.where(selected, 0, cotangent)]
    if name in _ACTIVATIONS or name in ("max", "min"):
        [place] = dependent
        before, [after] = operation.inputs[place].array, operation.outputs
        result: Cotangents = [None] * len(operation.inputs)
        result[place] = cotangents[0] * _ratio(after.array, before)
        return result
    raise RelevanceError(
        f"relevance reaches the operation {name!r}, which has no rule: explain an output before "
        "it, or add a rule to vision/blocks/relevance.py"
    )


def _shared(operation: Operation, cotangents: Cotangents, gates: set[Value]) -> Cotangents:
    """A product of two activations: gates count as constants."""
    signals = [i for i in operation.dependent if operation.inputs[i] not in gates]
    receivers = signals if len(signals) == 1 else operation.dependent
    shares = [x / len(receivers) for x in cotangents]
    return vjp(operation, shares, receivers)


@dataclasses.dataclass(frozen=True)
class _Affine:
    """A product with parameters, and the constants that follow it and belong to the layer.

    Attributes:
      output: the layer's output, ``factor * product + constant``, of the product's shape.
      factor: of that shape; None for 1.
    """

    output: jax.Array
    factor: jax.Array | None = None


def _affine(product: Value, readers: dict[Value, list[Operation]]) -> _Affine:
    """The product, its bias, and the scale and shift of an unfolded BatchNorm or a layer scale.

    Without a scale only the constant that is added next counts as bias. Later ones can differ
    between positions, as position embeddings do.
    """
    shape = product.array.shape
    value, factor = product, jnp.ones_like(product.array)
    bias, scaled, shifted = None, None, None
    while len(reading := readers.get(value, [])) == 1:
        [operation] = reading
        name = operation.name
        if len(operation.dependent) != 1:
            break
        if name in ("add", "add_any", "sub", "mul", "div"):
            [place] = operation.dependent
            after = operation.outputs[0].array
            if after.size != product.array.size or (name == "div" and place == 1):
                break
            constant = jnp.broadcast_to(operation.inputs[1 - place].array, after.shape)
            constant = constant.reshape(shape)
            if name in ("mul", "div"):
                factor = factor * constant if name == "mul" else factor / constant
            elif name == "sub" and place == 1:
                factor = -factor
        elif name not in _SAME_ORDER:
            break
        value = operation.outputs[0]
        if value.array.size != product.array.size:
            break
        current = _Affine(value.array.reshape(shape), factor)
        if name in ("mul", "div"):
            scaled, shifted = current, None
        elif name in ("add", "add_any", "sub") and scaled is not None and shifted is None:
            shifted = current
        elif name == "add" and bias is None and scaled is None:
            bias = _Affine(current.output)
    return shifted or scaled or bias or _Affine(product.array)


def _layer(
    operation: Operation, c: jax.Array, layer: _Affine, kind: LayerRule, rules: Lrp
) -> Cotangents:
    """A product with parameters, as if the layer's factor were folded into them."""
    output, factor = layer.output, layer.factor
    if kind == "epsilon":
        sign = jnp.where(output < 0, -1.0, 1.0).astype(output.dtype)
        return vjp(operation, [c * _ratio(output, output + rules.epsilon * sign)])
    [place] = operation.dependent
    x, weight = operation.inputs[place].array, operation.inputs[1 - place].array
    positive, negative = jnp.maximum(weight, 0), jnp.minimum(weight, 0)

    def with_weight(part: jax.Array) -> Operation:
        inputs = [Value(part), Value(part)]
        inputs[place] = Value(x, True)
        return dataclasses.replace(operation, inputs=tuple(inputs))

    def total(for_positive: jax.Array, for_negative: jax.Array) -> jax.Array:
        """The product of positive inputs with one weight and of negative ones with the other."""
        parts = []
        for inputs, part in ((jnp.maximum(x, 0), for_positive), (jnp.minimum(x, 0), for_negative)):
            arrays = [part, part]
            arrays[place] = inputs
            parts.append(operation.run(*arrays)[0])
        return parts[0] + parts[1]

    # c is the output's number per activation times the factor, and R = c * output.
    relevance_of_output = c * output if factor is None else _ratio(c * output, factor)
    alpha, beta = rules.alpha, rules.alpha - 1
    # A negative factor makes positive contributions to the product negative ones to the output.
    swapped = jnp.bool_(False) if factor is None else factor < 0
    share = jnp.where(swapped, -beta, alpha) * _ratio(
        relevance_of_output, total(positive, negative)
    )
    passed = [vjp(with_weight(part), [share])[place] for part in (positive, negative)]
    if beta > 0 or factor is not None:
        negative_share = jnp.where(swapped, alpha, -beta) * _ratio(
            relevance_of_output, total(negative, positive)
        )
        passed[0] += vjp(with_weight(negative), [negative_share])[place]
        passed[1] += vjp(with_weight(positive), [negative_share])[place]
    cotangents: Cotangents = [None, None]
    cotangents[place] = jnp.where(x >= 0, passed[0], passed[1])
    return cotangents


def _is_dense(operation: Operation, rows: int) -> bool:
    """Whether the output has one position per example, for ``rows`` examples."""
    if operation.name == "conv_general_dilated":
        out = operation.outputs[0].array.shape
        axes = jax_internals.convolution_axes(operation.params)
        return math.prod(out[i] for i in axes.out_spec[2:]) == 1
    contracting = jax_internals.contracted_axes(operation.params)
    [place] = operation.dependent
    shape = operation.inputs[place].array.shape
    return math.prod(n for i, n in enumerate(shape) if i not in contracting[place]) == rows


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    return jnp.where(denominator == 0, 0, numerator / jnp.where(denominator == 0, 1, denominator))
