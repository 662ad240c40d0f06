"""Variables of small networks, drawn by NumPy: ``init`` is traced for its shapes, never compiled.

Compiling is what a test costs: an ``init`` of a one-layer network takes longer than the gradient
that the test is about, and every number that it draws is a program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vision.parallel.mesh import Mesh, path_of
from vision.run.experiment import DataSpec
from vision.run.restore import Run
from vision.train.objective import Batch, Context, Objective, Variables
from vision.train.state import State


def drawn(init: Callable[[jax.Array, Any], Any], batch: Any, seed: int = 0) -> Any:
    """``filled`` with the shapes of ``init(key, batch)``, as of ``objective.init``."""
    return filled(jax.eval_shape(lambda batch: init(jax.random.key(0), batch), batch), seed)


def filled(shapes: Any, seed: int = 0) -> Any:
    """Every float of a tree of shapes random, of sizes that keep activations near 1; others 0.

    No zero head, zero bias or unit scale hides that a parameter is not used.
    """
    rng = np.random.default_rng(seed)

    def draw(key_path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = path_of(key_path).rpartition("/")[2]
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
        values = rng.standard_normal(leaf.shape)
        if name == "kernel" and leaf.ndim >= 4:
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif name == "kernel":
            values /= np.sqrt(leaf.shape[-2])
        elif name in ("scale", "var", "gamma"):
            values = np.exp(0.2 * values)
        elif name != "pos_embed":
            values *= 0.3
        return jnp.asarray(values.astype(leaf.dtype))  # NumPy converts without a program

    return jax.tree_util.tree_map_with_path(draw, shapes)


def first_state(abstract: State) -> State:
    """A state with ``filled`` variables: to compile what draws them takes longer than a step."""
    params, model_state = filled((abstract.params, abstract.model_state))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    return dataclasses.replace(zeros, params=params, model_state=model_state)


def untrained(objective: Objective, batch: Mapping[str, Any], seed: int = 0) -> Run:
    """What ``load_run`` would give of a run of ``objective`` that ended where it began."""
    data = DataSpec(0, (), {name: (x.shape, str(x.dtype)) for name, x in batch.items()})

    def predict(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        return objective.predict(variables, batch, Context.evaluation())

    experiment: Any = SimpleNamespace(model=objective.model)
    mesh = Mesh().build(jax.devices()[:1])
    variables = drawn(objective.init, batch, seed)
    return Run(ConfigDict(), experiment, data, 0, variables, predict, mesh)
