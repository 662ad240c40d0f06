"""Laying the one step out on a mesh and compiling it ahead of time."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import dis
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.own_modules import is_own
from vision.config.schema import ConfigError
from vision.parallel.mesh import (
    ShardingRule,
    batch_sharding,
    check_batch,
    replicated,
    state_shardings,
)
from vision.train.state import State
from vision.train.step import Metrics, Step

_COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute"
    r"|ragged-all-to-all|reduce-scatter)(?:-start)?\("
)
_MEMORY = {
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "reused": "alias_size_in_bytes",
    "temporaries": "temp_size_in_bytes",
    "code": "generated_code_size_in_bytes",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The step and its state, laid out on a mesh and compiled ahead of time.

    Attributes:
      abstract: the state as ``jax.ShapeDtypeStruct`` with shardings: what a restore needs.
      init: makes a sharded state of random variables; see ``random_state``.
      update: ``(state, batch) -> (state, metrics)``; the old state's buffers are reused.
      memory: bytes on one device, as the compiler counts them: ``arguments`` (state and batch),
        ``outputs`` (state and metrics), ``reused`` (outputs that take the place of arguments),
        ``temporaries`` (activations and gradients at their worst moment), ``code``. Empty where
        the compiler does not say.
      collectives: kind to number of instructions in the compiled step; one in the body of a
        loop, such as a scan over layers, counts once. Empty on one device.
      seconds: ``trace`` and ``compile``, the latter short with a warm compilation cache.
      text: the optimised HLO of one device, which ``vision.run.hlo`` reads.
    """

    abstract: State
    init: Callable[[], State]
    update: Callable[[State, Mapping[str, Any]], tuple[State, Metrics]]
    memory: Mapping[str, int]
    collectives: Mapping[str, int]
    seconds: Mapping[str, float]
    text: Callable[[], str]


def _init(step: Step, batch: Mapping[str, jax.ShapeDtypeStruct]) -> State:
    return step.init({name: jnp.zeros(x.shape, x.dtype) for name, x in batch.items()})


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """A ``raise ValueError`` of our code, or of one's own beside a config, concerns the config:
    one line. Any other error, also of a library that was called wrongly, keeps its traceback."""
    try:
        yield
    except ValueError as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        assert place is not None
        module = str(place.tb_frame.f_globals.get("__name__"))
        known = module.partition(".")[0] in ("vision", "papers", "configs") or is_own(module)
        instruction = dis.opname[place.tb_frame.f_code.co_code[place.tb_lasti]]
        if not known or instruction != "RAISE_VARARGS":
            raise
        raise ConfigError(f"this config's step cannot be made: {error}") from error


def lay_out(
    step: Step,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: jax.sharding.Mesh,
    rules: tuple[ShardingRule, ...] = (),
) -> State:
    """The state of a step as ``jax.ShapeDtypeStruct`` with shardings; compiles nothing.

    Raises:
      MeshError: rules that do not fit the state (see ``vision.parallel.mesh.state_shardings``), or
        a batch that does not divide by the devices.
      ConfigError: what a tower or objective refuses when it sees the shapes of its batch.
    """
    check_batch(next(iter(batch.values())).shape[0], mesh)
    with _refusals(), jax.set_mesh(mesh):
        shapes = jax.eval_shape(lambda: _init(step, batch))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        state_shardings(shapes, mesh, rules),
    )


def compile_step(
    step: Step,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: jax.sharding.Mesh,
    rules: tuple[ShardingRule, ...] = (),
) -> Compiled:
    """Traces and compiles a step for global batches of the given shapes.

    Args:
      step: what to compile.
      batch: shapes and dtypes of a global batch as the loader gives it.
      mesh: device mesh; batches are split along their first dimension.
      rules: layout of the state; see ``vision.parallel.mesh.ShardingRule``.

    Raises:
      MeshError, ConfigError: as ``lay_out``.
    """
    started = time.perf_counter()
    abstract = lay_out(step, batch, mesh, rules)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    with jax.set_mesh(mesh):
        update = jax.jit(
            step.update,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        )
        with _refusals():
            lowered = update.lower(abstract, dict(batch))
        traced = time.perf_counter()
        compiled = lowered.compile()
    seconds = {"trace": traced - started, "compile": time.perf_counter() - traced}

    return Compiled(
        abstract=abstract,
        init=functools.partial(random_state, step, batch, abstract, mesh),
        update=compiled,
        memory=memory(compiled),
        collectives=collectives(compiled),
        seconds=seconds,
        text=lambda: compiled.as_text() or "",
    )


def random_state(
    step: Step,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    abstract: State,
    mesh: jax.sharding.Mesh,
) -> State:
    """The state of ``step.init``, made in the layout of ``abstract`` (see ``lay_out``)."""
    # Run once: on a CPU, most of its time is optimising code that runs for milliseconds.
    cpu = jax.default_backend() == "cpu"
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"} if cpu else {}
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    with jax.set_mesh(mesh):
        init = jax.jit(lambda: _init(step, batch), out_shardings=shardings)
        return init.lower().compile(options)()


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes on one device of a compiled program; see ``Compiled.memory``."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    return {name: int(getattr(analysis, field)) for name, field in _MEMORY.items()}


def collectives(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Instructions of a compiled program that devices take part in together, by kind."""
    counts = collections.Counter(_COLLECTIVE.findall(compiled.as_text() or ""))
    return dict(sorted(counts.items()))
