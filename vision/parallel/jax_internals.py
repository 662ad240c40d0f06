"""Everything that this code reads of JAX outside its public interface, one function a reading.

``jax.extend.core`` gives traced programs (jaxprs) and their equations, but what an equation's
parameters are called differs between versions of JAX, and the client of the coordination service
has no public name. Where a newer JAX has renamed something, both names are read here and nowhere
else; ``tests/parallel/test_jax_internals.py`` has a test per reading, to be run with the oldest and
the newest JAX that ``requirements.txt`` allows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax import lax
from jax._src import distributed
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

# Equations that do nothing but call a program, and the parameter that holds it.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("core_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}
# What `jax.checkpoint`'s equation has, under every name that it had.
_CHECKPOINT = {"policy", "prevent_cse"}


@dataclasses.dataclass(frozen=True)
class Scan:
    """A ``lax.scan`` equation.

    Attributes:
      body: one step, from constants, carry and one slice of each stacked input to carry and one
        slice of each stacked output.
      length: number of steps.
      reverse: whether it goes from the last slice to the first.
      constants: how many inputs, the first ones, are the same in every step.
      carry: how many inputs, the ones after, and how many outputs, the first ones, are carried.
    """

    body: ClosedJaxpr
    length: int
    reverse: bool
    constants: int
    carry: int


def scan(params: Mapping[str, Any]) -> Scan:
    """What the parameters of a ``scan`` equation say."""
    if "ft_in" in params:  # jax 0.12: trees of the inputs instead of their numbers
        constants, carry, _ = (len(tree) for tree in params["ft_in"].unpack())
    else:
        constants, carry = params["num_consts"], params["num_carry"]
    return Scan(params["jaxpr"], params["length"], params["reverse"], constants, carry)


def called(equation: Any) -> tuple[str, ClosedJaxpr] | None:
    """The name and the program of an equation that only calls one; None for all others.

    The name is that of the function under ``jax.jit``, else of the primitive.
    """
    name = equation.primitive.name
    if name not in _CALLS:
        return None
    program = equation.params[_CALLS[name]]
    closed = program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())
    return equation.params.get("name", name), closed


def scopes(equation: Any) -> str:
    """Names of the ``jax.named_scope``s that an equation was traced in, by slashes.

    Transformations keep them and put their own around: ``transpose(jvp(name))``.
    """
    return str(equation.source_info.name_stack)


def branches(params: Mapping[str, Any]) -> tuple[Jaxpr, ...]:
    """The programs that a ``cond`` equation chooses from."""
    return tuple(branch.jaxpr for branch in params["branches"])


def inner_programs(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """All programs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def equations(program: Jaxpr) -> Iterator[Any]:
    """All equations of a program, at any depth; those that hold others before them."""
    for equation in program.eqns:
        yield equation
        for inner in inner_programs(equation.params):
            yield from equations(inner)


def shard_map_devices(params: Mapping[str, Any]) -> int:
    """On how many devices a ``shard_map`` equation runs its program."""
    axes = params.get("newly_manual_axes", params.get("manual_axes", ()))
    return math.prod(params["mesh"].shape[axis] for axis in axes)


def contracted_axes(params: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of the left and of the right operand that a ``dot_general`` equation sums over."""
    contracted, _ = params["dimension_numbers"]
    return contracted


def convolution_axes(params: Mapping[str, Any]) -> lax.ConvDimensionNumbers:
    """What the axes of a ``conv_general_dilated`` equation's operands and result are."""
    return params["dimension_numbers"]


def attention_is_heads_first(params: Mapping[str, Any]) -> bool:
    """Whether arrays of cuDNN's attention are (batch, heads, tokens, width), heads first."""
    return params["layout"] == 1


def kernel_name(params: Mapping[str, Any]) -> str:
    """The name under which a ``pallas_call`` equation's kernel was called."""
    return params["name"]


def is_variable(atom: Any) -> bool:
    """Whether an equation's input or output is a variable and no constant."""
    return isinstance(atom, Var)


def literal_value(atom: Any) -> tuple[Any] | None:
    """The constant that an equation's input is, in a tuple; None for a variable."""
    return (atom.val,) if isinstance(atom, Literal) else None


def keep_all_intermediates(program: ClosedJaxpr) -> ClosedJaxpr:
    """A program in which every ``jax.checkpoint``, at any depth, forgets nothing."""
    return _keep_all(program)


def _keep_all(value: Any) -> Any:
    # From jax 0.11 on the two types are one, and such a jaxpr is its own ``jaxpr``.
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:
        return value.replace(jaxpr=_keep_all(value.jaxpr))
    if isinstance(value, (tuple, list)) and any(isinstance(x, ClosedJaxpr) for x in value):
        kept = [_keep_all(x) for x in value]
        # Of a linear solve it is a named tuple.
        return type(value)(*kept) if hasattr(value, "_fields") else type(value)(kept)
    if not isinstance(value, Jaxpr):
        return value
    eqns = []
    for eqn in value.eqns:
        params = {name: _keep_all(param) for name, param in eqn.params.items()}
        if params.keys() >= _CHECKPOINT:
            params["policy"] = jax.checkpoint_policies.everything_saveable
        eqns.append(eqn.replace(params=params))
    return value.replace(eqns=eqns)


def mesh_platform(mesh: Any) -> str | None:
    """Platform of the devices that an abstract mesh stands for; None where it does not say."""
    device = getattr(mesh, "abstract_device", None)
    return None if device is None else device.platform


def coordination_client() -> Any | None:
    """The connection to the coordination service of several processes; None in a single one.

    Read of it: ``key_value_set``, ``blocking_key_value_get``, ``key_value_dir_get``,
    ``key_value_delete`` and ``wait_at_barrier``.
    """
    state = distributed.global_state
    return state.client if state.client is not None and state.num_processes > 1 else None


def coordinator_address() -> str | None:
    """``host:port`` of process 0, as far as ``jax.distributed`` has found it; None before."""
    return distributed.global_state.coordinator_address
