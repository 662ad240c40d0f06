"""Small states for tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from vision.checkpoint.store import Checkpoints, CheckpointStore


def tree(scale: float = 1.0) -> dict:
    return {
        "params": {"model": {"kernel": scale * jnp.arange(64.0).reshape(16, 4)}},
        "opt_state": (jnp.ones(3, jnp.bfloat16), {"count": jnp.asarray(7, jnp.int32)}),
        "step": jnp.asarray(3, jnp.int32),
    }


def shapes(state: dict) -> dict:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def saved(workdir: Path, states: dict[int, dict]) -> CheckpointStore:
    store = CheckpointStore(workdir, Checkpoints(keep=9))
    for step, state in states.items():
        assert store.save(step, state, {"step": step}, wait=True)
    return store
