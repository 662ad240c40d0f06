"""A traced function as a list of its operations, and its backward pass with modified rules.

``record`` runs a function and records every primitive operation whose result depends on the input,
with calls inlined and scans unrolled; ``Tape.pull`` runs the backward pass. With the rule ``vjp``
for all operations it is the gradient; methods that change the backward pass (relevance, guided
backpropagation) supply their own rule without changing the model. Traceable; run it under
``jax.jit``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr

from vision.parallel import jax_internals


@dataclasses.dataclass(eq=False)
class Value:
    """An array of a recorded run.

    Attributes:
      array: traced, or a constant.
      depends: whether it is a differentiable function of the input.
    """

    array: Any
    depends: bool = False


@dataclasses.dataclass(eq=False)
class Operation:
    """A recorded primitive operation.

    Attributes:
      name: of the primitive, such as ``dot_general``.
      params: of the primitive.
      calls: names of the enclosing functions under ``jax.jit``, outermost first:
        ``jax.nn.relu`` is a ``max`` in a call ``relu``.
      inputs, outputs: its operands and results; at least one of each depends on the input.
      run: maps the arrays of the inputs to a list of arrays of the outputs.
    """

    name: str
    params: dict[str, Any]
    calls: tuple[str, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    run: Callable[..., list[Any]]

    @property
    def dependent(self) -> list[int]:
        """Indices of the inputs that depend on the function's input."""
        return [i for i, value in enumerate(self.inputs) if value.depends]


Cotangents = list[Any]
# Maps the cotangents of the outputs to those of the inputs; None for no cotangent.
Rule = Callable[[Operation, Cotangents], Cotangents]


@dataclasses.dataclass(eq=False)
class Tape:
    """The operations that ``record`` recorded.

    Attributes:
      start: the function's input.
      operations: in order of execution.
      end: the function's result.
    """

    start: Value
    operations: list[Operation]
    end: Value

    def pull(self, cotangent: jax.Array, rule: Rule) -> jax.Array:
        """The cotangent of the input from that of the result, by ``rule`` at each operation."""
        cotangents: dict[Value, Any] = {}
        if self.end.depends:
            cotangents[self.end] = cotangent
        for operation in reversed(self.operations):
            output_cotangents = [cotangents.pop(value, None) for value in operation.outputs]
            if all(x is None for x in output_cotangents):
                continue
            filled = [
                jnp.zeros_like(value.array) if x is None else x
                for value, x in zip(operation.outputs, output_cotangents, strict=True)
            ]
            for value, x in zip(operation.inputs, rule(operation, filled), strict=True):
                if value.depends and x is not None:
                    cotangents[value] = cotangents[value] + x if value in cotangents else x
        return cotangents.get(self.start, jnp.zeros_like(self.start.array))


def record(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> Tape:
    """Runs ``function``, from one floating-point array to one, and records its operations.

    Primitives other than calls and scans are one operation each, also ``cond`` and ``while``.
    """
    start, operations = Value(x, True), []
    [end] = _read(jax.make_jaxpr(function)(x), [start], operations, ())
    return Tape(start, operations, end)


def vjp(operation: Operation, cotangents: Cotangents, places: Sequence[int] | None = None):
    """Cotangents of the inputs at the indices ``places``; None for all that depend."""
    places = operation.dependent if places is None else places
    differentiable = [i for i, value in enumerate(operation.outputs) if value.depends]

    def run(*arrays_at: Any) -> list[Any]:
        arrays = [value.array for value in operation.inputs]
        for place, array in zip(places, arrays_at, strict=True):
            arrays[place] = array
        results = operation.run(*arrays)
        return [results[i] for i in differentiable]

    _, pull = jax.vjp(run, *(operation.inputs[i].array for i in places))
    gradients = pull(
        [cotangents[i].astype(operation.outputs[i].array.dtype) for i in differentiable]
    )
    input_cotangents: Cotangents = [None] * len(operation.inputs)
    for place, x in zip(places, gradients, strict=True):
        input_cotangents[place] = x
    return input_cotangents


def _read(
    closed: ClosedJaxpr, inputs: list[Value], operations: list[Operation], calls: tuple[str, ...]
) -> list[Value]:
    """Runs a jaxpr on values, appending its operations to ``operations``."""
    jaxpr = closed.jaxpr
    known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {v: Value(x) for v, x in zip(jaxpr.constvars, closed.consts, strict=True)}
    for equation in jaxpr.eqns:
        operands = [_value(v, known) for v in equation.invars]
        results = _run(equation, operands, operations, calls)
        known |= dict(zip(equation.outvars, results, strict=True))
    return [_value(v, known) for v in jaxpr.outvars]


def _value(atom: Any, known: dict[Any, Value]) -> Value:
    constant = jax_internals.literal_value(atom)
    return known[atom] if constant is None else Value(*constant)


def _run(
    equation: Any, inputs: list[Value], operations: list[Operation], calls: tuple[str, ...]
) -> list[Value]:
    name, params, primitive = equation.primitive.name, equation.params, equation.primitive
    call = jax_internals.called(equation)
    if call is not None:
        function, program = call
        return _read(program, inputs, operations, (*calls, function))
    depends = any(value.depends for value in inputs)
    if name == "scan" and depends:
        return _unrolled(jax_internals.scan(params), inputs, operations, calls)

    def run(*arrays: Any) -> list[Any]:
        results = primitive.bind(*arrays, **params)
        return list(results) if primitive.multiple_results else [results]

    arrays = run(*(value.array for value in inputs))
    outputs = [Value(x, depends and jnp.issubdtype(x.dtype, jnp.floating)) for x in arrays]
    if any(value.depends for value in outputs):
        operations.append(Operation(name, params, calls, tuple(inputs), tuple(outputs), run))
    return outputs


def _unrolled(
    scan: jax_internals.Scan,
    inputs: list[Value],
    operations: list[Operation],
    calls: tuple[str, ...],
) -> list[Value]:
    """Runs a scan unrolled, step by step."""
    num_constants, num_carry = scan.constants, scan.carry
    constants, carry = inputs[:num_constants], inputs[num_constants : num_constants + num_carry]
    steps = range(scan.length)
    step_outputs: dict[int, list[Value]] = {}
    for i in reversed(steps) if scan.reverse else steps:
        step_inputs = [
            _apply(lambda x, i=i: lax.index_in_dim(x, i, keepdims=False), [x], operations)
            for x in inputs[num_constants + num_carry :]
        ]
        body_outputs = _read(scan.body, [*constants, *carry, *step_inputs], operations, calls)
        carry, step_outputs[i] = body_outputs[:num_carry], body_outputs[num_carry:]
    columns = zip(*(step_outputs[i] for i in steps), strict=True)
    return [*carry, *(_apply(lambda *x: jnp.stack(x), list(c), operations) for c in columns)]


def _apply(
    function: Callable[..., jax.Array], inputs: list[Value], operations: list[Operation]
) -> Value:
    closed = jax.make_jaxpr(function)(*(value.array for value in inputs))
    return _read(closed, inputs, operations, ())[0]
