"""A ViT's blocks with its sites, but a fourth of what a ViT costs to trace and compile."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, wants


class BlockTower(nn.Module):
    """Patches, a class token and registers before them, blocks of attention and an MLP, a head.

    ``out`` has ``stem``, and of every block what a ``ViT`` has: ``blockNN``, its branches ``/attn``
    and ``/mlp``, and where asked ``/middle`` and ``/attention``. No norms, no positions.

    Attributes:
      width, depth, patch, registers, num_classes: as those of a ``ViT``.
    """

    width: int = 8
    depth: int = 2
    patch: int = 2
    registers: int = 0
    num_classes: int | None = None
    # What methods ask of a ViT.
    heads: int = 1
    pool: str = "cls"
    remat: str = "none"
    precision: Precision = Precision()

    @nn.nowrap
    def resolved(self) -> BlockTower:
        return self

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Tap | None = None) -> Any:
        rows, height, width, _ = x.shape
        side = self.patch
        x = x.reshape(rows, height // side, side, width // side, side, -1).swapaxes(2, 3)
        x = x.reshape(rows, -1, side * side * x.shape[-1])
        x = nn.Dense(self.width, name="patches")(x)
        prefix = (1, 1 + self.registers, self.width)
        first = self.param("prefix", nn.initializers.normal(), prefix)
        x = jnp.concatenate([jnp.broadcast_to(first, (rows, *prefix[1:])), x], 1)
        x = apply_tap(tap, "stem", x)
        out = {"stem": x}
        for number in range(self.depth):
            site = f"block{number:02d}"
            q, k, v = jnp.split(nn.Dense(3 * self.width, name=f"{site}_qkv")(x), 3, -1)
            weights = jax.nn.softmax(q @ k.swapaxes(1, 2) / self.width**0.5)[:, None]
            if wants(tap, f"{site}/attention"):
                weights = out[f"{site}/attention"] = apply_tap(tap, f"{site}/attention", weights)
            branch = out[f"{site}/attn"] = apply_tap(tap, f"{site}/attn", weights[:, 0] @ v)
            x = x + branch
            if wants(tap, f"{site}/middle"):
                x = out[f"{site}/middle"] = apply_tap(tap, f"{site}/middle", x)
            branch = jnp.tanh(nn.Dense(self.width, name=f"{site}_mlp")(x))
            branch = out[f"{site}/mlp"] = apply_tap(tap, f"{site}/mlp", branch)
            x = out[site] = apply_tap(tap, site, x + branch)
        embedding = out["embedding"] = x[:, 0]
        if self.num_classes:
            out["logits"] = nn.Dense(self.num_classes, name="head")(embedding)
        return embedding, out
