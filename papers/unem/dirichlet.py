"""Differentiable maximum-likelihood fit of Dirichlet distributions to mean logarithms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, polygamma

_STEPS = 200
_LEAST, _MOST = 1e-3, 200.0  # beyond, the Hessian of float32 is singular to rounding


def log_density(log_x: jax.Array, alpha: jax.Array) -> jax.Array:
    """log Dir(x; alpha) over the last axis, of log_x (..., D) and alpha (..., D)."""
    normaliser = gammaln(jnp.sum(alpha, -1)) - jnp.sum(gammaln(alpha), -1)
    return normaliser + jnp.sum((alpha - 1) * log_x, -1)


@jax.custom_vjp
def fit(mean_log: jax.Array) -> jax.Array:
    """Maximum-likelihood alpha (..., D) of points with these mean logarithms.

    Maximises the concave ``lnG(sum alpha) - sum lnG(alpha) + sum (alpha - 1) mean_log`` by Newton's
    method (Minka, Estimating a Dirichlet Distribution, 2000); a step changes no entry by more than
    a factor of four. The gradient is the implicit one of the maximum, not that of the iterations.

    Args:
      mean_log: (..., D). The more similar the points, the larger alpha, which is clipped at 200.
    """

    def not_converged(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        step, _, change = carry
        return (step < _STEPS) & (change > 1e-5)

    def newton_step(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        step, alpha, _ = carry
        gradient = digamma(alpha.sum(-1, keepdims=True)) - digamma(alpha) + mean_log
        direction = _divided(alpha, gradient)
        # No entry changes by more than a factor of four.
        limit = alpha * jnp.where(direction > 0, 0.75, 3.0) / jnp.maximum(jnp.abs(direction), 1e-30)
        new = alpha - direction * jnp.minimum(1, jnp.min(limit, -1, keepdims=True))
        new = jnp.maximum(new, _LEAST)
        new = new * jnp.minimum(1, _MOST / jnp.max(new, -1, keepdims=True))
        return step + 1, new, jnp.max(jnp.abs(new / alpha - 1))

    start = (jnp.int32(0), jnp.ones_like(mean_log), jnp.asarray(jnp.inf, mean_log.dtype))
    return jax.lax.while_loop(not_converged, newton_step, start)[1]


def _divided(alpha: jax.Array, x: jax.Array) -> jax.Array:
    """x (..., D) divided by the Hessian, a diagonal and a constant."""
    diagonal = -polygamma(1, alpha)
    constant = polygamma(1, alpha.sum(-1, keepdims=True))
    projection = jnp.sum(x / diagonal, -1, keepdims=True)
    return (x - projection / (1 / constant + jnp.sum(1 / diagonal, -1, keepdims=True))) / diagonal


def _forward(mean_log: jax.Array) -> tuple[jax.Array, jax.Array]:
    alpha = fit(mean_log)
    return alpha, alpha


def _backward(alpha: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    # Where alpha was clipped its gradient is zero.
    free = jnp.all((alpha > _LEAST) & (alpha < 0.999 * _MOST), -1, keepdims=True)
    return (jnp.where(free, -_divided(alpha, cotangent), 0.0),)


fit.defvjp(_forward, _backward)
