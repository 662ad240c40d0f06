"""The state of a run: everything that decides its next step."""

from __future__ import annotations

import hashlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from vision.parallel.mesh import path_of
from vision.train.objective import Variables

Tree = Any


@flax.struct.dataclass
class State:
    """Sharded, donated, checkpointed and hashed as one tree.

    Attributes:
      step: int32 scalar: updates done. It is the position in the data as well: batch ``step``
        is the next one to be read.
      params: network name to parameters.
      model_state: network name to BatchNorm statistics and the like.
      opt_state: the optimizer's.
      extra_state: what the method remembers between steps; ``ema`` is the parameter average.
      key: uint32 key data, constant over a run; step ``t`` draws from ``fold_in(key, t)``.
    """

    step: jax.Array
    params: dict[str, Tree]
    model_state: dict[str, Tree]
    opt_state: Tree
    extra_state: dict[str, Tree]
    key: jax.Array

    @property
    def variables(self) -> Variables:
        return Variables(self.params, self.model_state, self.extra_state)

    @property
    def averaged(self) -> Variables:
        """Variables for evaluation: the parameter average where the run keeps one."""
        if "ema" not in self.extra_state:
            return self.variables
        return Variables(
            self.extra_state["ema"]["params"],
            self.extra_state["ema"]["model_state"],
            self.extra_state,
        )


def digest(tree: Tree) -> str:
    """SHA-256 over the paths, dtypes, shapes and bytes of every leaf, in order of path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    total = hashlib.sha256()
    for path, leaf in sorted(((path_of(p), x) for p, x in leaves), key=lambda item: item[0]):
        array = np.ascontiguousarray(jax.device_get(leaf))
        total.update(f"{path}:{array.dtype}:{array.shape}:".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def seed_key(seed: int | jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed))


def step_key(key: jax.Array, step: jax.Array) -> jax.Array:
    """The typed key of one step."""
    return jax.random.fold_in(jax.random.wrap_key_data(key), jnp.asarray(step, jnp.uint32))
