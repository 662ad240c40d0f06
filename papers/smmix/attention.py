"""Where a tower's attention goes: one weight per patch, from the weights that its sites keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from vision.train.tower import Tap


def last_attention(names: Iterable[str]) -> str:
    """The site of the last block's attention weights, of the names in a tower's ``out``."""
    blocks = [name.partition("/")[0] for name in names if name.startswith("block")]
    return f"{max(blocks)}/attention"


def patch_attention(out: Mapping[str, jax.Array], tap: Tap) -> jax.Array:
    """Attention to each patch (B, h, w) from all patches, averaged over heads, queries and sites.

    Args:
      out: a tower's; ``map`` has (B, h, w, D), the sites (B, heads, N, N), patches last.
      tap: names the sites.

    Raises:
      ValueError: it names none of ``out``.
    """
    sites = [name for name in out if tap.wants(name)]
    if not sites:
        raise ValueError(f"attention: {tap.sites!r} matches none of {sorted(out)}")
    grid = out["map"].shape[1:3]
    patches = grid[0] * grid[1]
    # Patches are last, after class token and registers.
    maps = [out[name][..., -patches:, -patches:].mean((1, 2)) for name in sites]
    return jnp.mean(jnp.stack(maps), 0).reshape(-1, *grid)
