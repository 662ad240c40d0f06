"""A head with the classes of all tasks: masked to those so far, and aligned between tasks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
NEVER = -1e30


def masked_to(logits: jax.Array, classes: tuple[int, ...]) -> jax.Array:
    """Logits (B, K), those of all classes but ``classes`` set to ``NEVER``."""
    allowed = np.isin(np.arange(logits.shape[-1]), classes)
    return jnp.where(allowed, logits, NEVER)


def aligned(params: Tree, old: tuple[int, ...], new: tuple[int, ...]) -> Tree:
    """Parameters with the head's vectors of ``new`` classes scaled to the mean norm of ``old``.

    Weight aligning (Zhao et al., Maintaining Discrimination and Fairness, 2020); the kernel of
    ``head`` is (D, K).
    """
    if not old:
        return params
    head = params["head"]
    lengths = jnp.linalg.norm(head["kernel"], axis=0)
    ratio = lengths[jnp.asarray(old)].mean() / jnp.maximum(lengths[jnp.asarray(new)].mean(), 1e-12)
    factor = jnp.where(np.isin(np.arange(len(lengths)), new), ratio, 1.0)
    return {**params, "head": {**head, "kernel": head["kernel"] * factor}}
