"""The LSTM that proposes cells, and proximal policy optimisation of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.nasnet import OPERATIONS

_NEVER = -1e9  # a logit; an infinite one has no gradient
Weights = dict[str, jax.Array]


def choices(steps: int) -> np.ndarray:
    """int (8 B,): among how many things each choice is; B steps of the normal, then the reduction
    cell, each two states and two operations."""
    one = [[i + 2, i + 2, len(OPERATIONS), len(OPERATIONS)] for i in range(steps)]
    return np.array(one * 2).reshape(-1)


@dataclasses.dataclass(frozen=True)
@checked
class Controller:
    """The LSTM and how it learns; the defaults are the paper's.

    Attributes:
      steps: B, of a cell.
      units: of the LSTM.
      rate: of Adam; 0 is random search from the first weights.
      clip: eps of the ratio.
      epochs: updates on each batch of children.
      entropy: beta.
      decay: of the moving average of rewards.
    """

    steps: Positive[int] = 5
    units: Positive[int] = 100
    rate: NonNegative[float] = 3.5e-4
    clip: Positive[float] = 0.2
    epochs: Positive[int] = 1
    entropy: NonNegative[float] = 1e-5
    decay: Rate = 0.95

    def init(self, seed: int) -> Weights:
        """Uniform in -0.1..0.1; the first row of ``embed`` is before the first choice."""
        most, u = max(len(OPERATIONS), self.steps + 1), self.units
        shapes = {"embed": (1 + 2 * most, u), "kernel": (2 * u, 4 * u), "bias": (4 * u,)}
        shapes |= {"state": (u, most), "operation": (u, most)}
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        return {
            name: jax.random.uniform(key, shape, jnp.float32, -0.1, 0.1)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    @functools.partial(jax.jit, static_argnames=("self", "count"))
    def propose(self, w: Weights, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """Choices int (count, 8 B) of children, and the log-probability (count,) of each."""
        taken, logp, _ = self._run(w, key, jnp.zeros((count, len(choices(self.steps))), int), True)
        return taken, logp

    @functools.partial(jax.jit, static_argnames=("self",))
    def log_probability(self, w: Weights, chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(N,) of choices int (N, 8 B), and the mean entropy in nats of their distributions."""
        _, logp, entropy = self._run(w, jax.random.key(0), chosen, False)
        return logp, entropy

    def _run(self, w: Weights, key: jax.Array, given: jax.Array, draw: bool) -> Any:
        sizes = choices(self.steps)
        count, most = len(given), w["state"].shape[1]

        def one(carry: Any, now: Any) -> tuple[Any, Any]:
            h, c, before = carry
            size, is_state, key, wanted = now
            gates = jnp.concatenate([w["embed"][before], h], -1) @ w["kernel"] + w["bias"]
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            logits = h @ jnp.where(is_state, w["state"], w["operation"])
            logits = jnp.where(jnp.arange(most) < size, logits, _NEVER)
            logp = jax.nn.log_softmax(logits)
            taken = jax.random.categorical(key, logits) if draw else wanted
            told = jnp.take_along_axis(logp, taken[:, None], -1)[:, 0]
            entropy = -jnp.sum(jnp.exp(logp) * logp, -1)
            return (h, c, 1 + taken + jnp.where(is_state, 0, most)), (taken, told, entropy)

        zero = jnp.zeros((count, self.units))
        start = (zero, zero, jnp.zeros(count, int))
        kinds = np.tile([True, True, False, False], len(sizes) // 4)
        each = (jnp.asarray(sizes), kinds, jax.random.split(key, len(sizes)), given.T)
        _, (taken, told, entropy) = jax.lax.scan(one, start, each)
        return taken.T, told.sum(0), entropy.mean()

    @functools.partial(jax.jit, static_argnames=("self",))
    def update(
        self,
        w: Weights,
        memory: Any,
        chosen: jax.Array,
        drawn: jax.Array,
        advantage: jax.Array,
    ) -> tuple[Weights, Any]:
        """Weights and Adam's memory after ``epochs`` steps on a batch of children.

        Args:
          w: weights; ``memory`` is ``optax.scale_by_adam().init`` of the first ones.
          memory: of Adam.
          chosen: int (N, 8 B).
          drawn: (N,) log-probabilities with which they were drawn.
          advantage: (N,) rewards less the baseline.
        """
        for _ in range(self.epochs):

            def loss(w: Weights) -> jax.Array:
                logp, entropy = self.log_probability(w, chosen)
                ratio = jnp.exp(logp - drawn)
                clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
                gain = jnp.minimum(ratio * advantage, clipped * advantage)
                return -gain.mean() - self.entropy * entropy

            updates, memory = optax.scale_by_adam().update(jax.grad(loss)(w), memory)
            w = jax.tree.map(lambda x, update: x - self.rate * update, w, updates)
        return w, memory
