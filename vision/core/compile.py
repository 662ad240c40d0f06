"""Laying the one step out on a mesh and compiling it ahead of time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vision.core.mesh import ShardingRule, batch_sharding, replicated, state_shardings
from vision.core.state import State
from vision.core.step import Metrics, Step


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The step and its state, laid out on a mesh and compiled ahead of time.

    Attributes:
      abstract: the state as ``jax.ShapeDtypeStruct`` with shardings: what a restore needs.
      init: makes a fresh, sharded state.
      update: ``(state, batch) -> (state, metrics)``; the old state's buffers are reused.
    """

    abstract: State
    init: Callable[[], State]
    update: Callable[[State, Mapping[str, Any]], tuple[State, Metrics]]


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
      rules: layout of the state; see ``vision.core.mesh.ShardingRule``.
    """

    def init() -> State:
        return step.init({name: jnp.zeros(x.shape, x.dtype) for name, x in batch.items()})

    rows = batch_sharding(mesh)
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(init)
        shardings = state_shardings(shapes, mesh, rules)
        abstract = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        update = jax.jit(
            step.update,
            in_shardings=(shardings, rows),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        )
        lowered = update.lower(abstract, dict(batch))
        compiled = lowered.compile()

    def fresh() -> State:
        # Run once: on a CPU, most of its time is optimising code that runs for milliseconds.
        cpu = jax.default_backend() == "cpu"
        options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"} if cpu else {}
        with jax.set_mesh(mesh):
            return jax.jit(init, out_shardings=shardings).lower().compile(options)()

    return Compiled(abstract, fresh, compiled)
