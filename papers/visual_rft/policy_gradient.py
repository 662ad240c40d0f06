"""GRPO: advantages within a group of sampled answers, and the loss of their tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def advantages(rewards: jax.Array) -> jax.Array:
    """Rewards (B, G) minus their group's mean, divided by its deviation (with G - 1)."""
    deviation = jnp.std(rewards, 1, ddof=1, keepdims=True)
    return (rewards - rewards.mean(1, keepdims=True)) / (deviation + 1e-4)


def policy_losses(
    lp: jax.Array, lp_ref: jax.Array, advantage: jax.Array, beta: float
) -> tuple[jax.Array, jax.Array]:
    """Losses and k3, both (B, G, T), of log-probabilities (B, G, T) and advantages (B, G)."""
    log_ratio = jax.lax.stop_gradient(lp_ref) - lp
    k3 = jnp.exp(log_ratio) - log_ratio - 1
    ratio = jnp.exp(lp - jax.lax.stop_gradient(lp))
    return beta * k3 - ratio * jax.lax.stop_gradient(advantage)[..., None], k3
