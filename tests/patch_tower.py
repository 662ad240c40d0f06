"""A transformer of one layer that compiles in no time: patches, a prefix, attention, a head."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.train.tower import apply_tap, wants


class PatchTower(nn.Module):
    """``out`` has ``stem``, ``block00``, ``map``, ``embedding`` and, where asked, attention.

    Patches of 4 x 4 pixels after ``prefix`` learned tokens; no positions, so that images of any
    size will do.
    """

    width: int = 16
    prefix: int = 2
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        rows, height, width, _ = x.shape
        grid = height // 4, width // 4
        x = x.reshape(rows, grid[0], 4, grid[1], 4, -1).swapaxes(2, 3)
        x = nn.Dense(self.width, name="patches")(x.reshape(rows, grid[0] * grid[1], -1))
        first = self.param("prefix", nn.initializers.normal(), (1, self.prefix, self.width))
        x = jnp.concatenate([jnp.broadcast_to(first, (rows, *first.shape[1:])), x], 1)
        x = apply_tap(tap, "stem", x)
        out = {"stem": x}
        q, k, v = jnp.split(nn.Dense(3 * self.width, name="qkv")(x), 3, -1)
        weights = jax.nn.softmax(q @ k.swapaxes(1, 2) / self.width**0.5)[:, None]
        if wants(tap, "block00/attention"):
            weights = out["block00/attention"] = apply_tap(tap, "block00/attention", weights)
        x = out["block00"] = x + jnp.tanh(weights[:, 0] @ v)
        out["map"] = x[:, self.prefix :].reshape(rows, *grid, self.width)
        embedding = out["embedding"] = x[:, 0]
        if self.num_classes:
            out["logits"] = nn.Dense(self.num_classes, name="head")(embedding)
        return embedding, out
