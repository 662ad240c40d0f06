"""The terms of a request's loss, the norms of its groups, and what is told of its outcome."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Finite, NonNegative, checked
from vision.objectives.classify import cross_entropy
from vision.parallel.mesh import path_of
from vision.train.objective import masked_mean
from vision.train.tower import STACK

Tree = Any
SMALL = 1e-2  # of the largest norm, below which a block counts as unchanged


@dataclasses.dataclass(frozen=True)
@checked
class Weights:
    """What the terms of the loss count; see the module.

    Attributes:
      beta: of forgetting.
      bound: BND, nats, above which a mean cross-entropy is no longer raised.
      group: alpha.
      prototype_forget: w_f.
      prototype_remain: w_r.
      prototype_bound: BND_p, nats.
    """

    beta: NonNegative[Finite] = 0.15
    bound: NonNegative[Finite] = 105.0
    group: NonNegative[Finite] = 1e-4
    prototype_forget: NonNegative[Finite] = 0.03
    prototype_remain: NonNegative[Finite] = 0.03
    prototype_bound: NonNegative[Finite] = 50.0


def request_loss(
    weights: Weights,
    logits: jax.Array,
    embedding: jax.Array,
    prototypes: jax.Array,
    known: jax.Array,
    label: jax.Array,
    forgets: jax.Array,
    valid: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a request without its groups, and its parts.

    Args:
      weights: of its terms.
      logits: (B, K).
      embedding: (B, D).
      prototypes: (K, D) before the request.
      known: (K,) bool, classes that have one.
      label: (B,) int.
      forgets: (B,) bool, images of classes to forget.
      valid: (B,) bool, images that count.
    """
    targets = jax.nn.one_hot(label, logits.shape[-1])
    losses = cross_entropy(logits, targets, "softmax", 0.0)
    before = jax.nn.log_softmax(prototypes[label])
    after = jax.nn.log_softmax(embedding)
    apart = jnp.sum(jnp.exp(before) * (before - after), -1)
    remains, forgets = valid & ~forgets, valid & forgets
    parts = {
        "ce_remain": masked_mean(losses, remains),
        "ce_forget": masked_mean(losses, forgets),
        "kl_remain": masked_mean(apart, remains & known[label]),
        "kl_forget": masked_mean(apart, forgets & known[label]),
    }
    # Without an image of F there is nothing to raise.
    any_forgets = forgets.any()
    raised = weights.beta * jax.nn.relu(weights.bound - parts["ce_forget"])
    raised += weights.prototype_forget * jax.nn.relu(weights.prototype_bound - parts["kl_forget"])
    held = parts["ce_remain"] + weights.prototype_remain * parts["kl_remain"]
    return held + jnp.where(any_forgets, raised, 0), parts


def group_norms(added: Tree) -> jax.Array:
    """Norms float32 (G,) of the adapters of every block, in order of the blocks.

    Args:
      added: adapters, as from ``init_adapters``; of a stack of blocks every slice is a group, and
        layers outside of blocks are groups of their own name.
    """
    squares: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(added):
        names = path_of(key_path).split("/")
        stacked = STACK in names
        found = (re.match(r"block\d+", name) for name in names)
        block = next((match.group() for match in found if match), names[0])
        x = jnp.square(leaf.astype(jnp.float32))
        square = x.reshape(len(x), -1).sum(1) if stacked else x.sum()[None]
        group = "/".join(names[: names.index(STACK) + 1]) if stacked else block
        squares[group] = squares.get(group, 0) + square
    square = jnp.concatenate([squares[name] for name in sorted(squares)])
    # A norm of zero has no slope; the root of it would have one of infinity.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def harmonic(remain: float, drop: float) -> float:
    """H of an accuracy on what remains and a drop on what is forgotten; 0 without a drop."""
    return 2 * remain * drop / (remain + drop) if drop > 0 and remain > 0 else 0.0


def changed(norms: np.ndarray) -> float:
    """Share of blocks whose norm is above ``SMALL`` of the largest; 0 where all are zero."""
    norms = np.asarray(norms)
    return float(np.mean(norms > SMALL * norms.max())) if norms.max() > 0 else 0.0
