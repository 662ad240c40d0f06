"""How far below the head of its tower a parameter lies, told by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vision.config.schema import ConfigError
from vision.parallel.mesh import path_of

Tree = Any
Parts = tuple[str, ...]
Shapes = Mapping[Parts, tuple[int, ...]]

STACK = "blocks"  # parameters of blocks that a scan runs: their first axis counts layers
_BLOCK = re.compile(r"block(\d+)")
_STEM = re.compile(r"stem.*|patch_embed|token_embed|pos_embed|cls_.*|registers|norm_pre")
_BETWEEN = re.compile(r"((?:downsample|transition)\d+_).*")


def layers_above(params: Tree) -> Tree:
    """For every leaf, how many layers lie between it and the head of its tower.

    A tower is whatever has ``block00`` and so on, or ``blocks``. With L blocks its embeddings
    count L + 1, block i (from 0) L - i, a ``downsample`` or ``transition`` as much as the block
    after it, the last ``norm`` 1 like the last block, and everything else 0: head, pooling, norms
    after pooling, and what belongs to no tower. Those are the groups of timm's
    ``param_groups_layer_decay``, but that its ConvNeXt counts the last norm as 0.

    Args:
      params: a tree of arrays or shapes.

    Returns:
      A tree like it of NumPy integers: scalars, and for ``blocks`` one number per layer.

    Raises:
      ConfigError: a ``downsample`` or ``transition`` that is as wide as no block.
    """
    leaves = [(_parts(p), leaf.shape) for p, leaf in jax.tree_util.tree_leaves_with_path(params)]
    prefixes = {parts[:i] for parts, _ in leaves if (i := _place_of_block(parts)) is not None}
    homes = [_longest_prefix(parts, prefixes) for parts, _ in leaves]
    towers: dict[Parts, dict[Parts, tuple[int, ...]]] = {prefix: {} for prefix in prefixes}
    for (parts, shape), home in zip(leaves, homes, strict=True):
        if home is not None:
            towers[home][parts[len(home) :]] = shape
    above = {home: _layers_above(shapes) for home, shapes in towers.items()}
    found = [
        np.array(0) if home is None else above[home][parts[len(home) :]]
        for (parts, _), home in zip(leaves, homes, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def _parts(key_path: Any) -> Parts:
    # What is added to a tower's kernels lies under their names: see vision.models.adapted.
    return tuple("tower" if p == "adapters" else p for p in path_of(key_path).split("/"))


def _place_of_block(parts: Parts) -> int | None:
    places = (i for i, part in enumerate(parts) if part == STACK or _BLOCK.fullmatch(part))
    return next(places, None)


def _longest_prefix(parts: Parts, prefixes: set[Parts]) -> Parts | None:
    lengths = [n for n in range(len(parts)) if parts[:n] in prefixes]
    return parts[: max(lengths)] if lengths else None


def _layers_above(tower: Shapes) -> dict[Parts, np.ndarray]:
    """``layers_above`` of the leaves of one tower."""
    depths = [shape[0] for parts, shape in tower.items() if parts[0] == STACK]
    depths += [int(n[1]) + 1 for parts in tower if (n := _BLOCK.fullmatch(parts[0]))]
    depth = max(depths)

    def above(name: str) -> np.ndarray:
        if name == STACK:
            return depth - np.arange(depth)
        if number := _BLOCK.fullmatch(name):
            return np.array(depth - int(number[1]))
        if between := _BETWEEN.fullmatch(name):
            return np.array(depth - _block_after(between[1], tower))
        if _STEM.fullmatch(name):
            return np.array(depth + 1)
        return np.array(1 if name == "norm" else 0)

    return {parts: above(parts[0]) for parts in tower}


def _block_after(prefix: str, tower: Shapes) -> int:
    """The first block whose norm is as wide as what the layers of this prefix make."""
    (width,) = {
        shape[-1]
        for parts, shape in tower.items()
        if parts[0].startswith(prefix) and parts[-1] == "kernel"
    }
    blocks = [
        int(number[1])
        for parts, shape in tower.items()
        if (number := _BLOCK.fullmatch(parts[0])) and parts[1:2] in (("norm",), ("norm1",))
        if shape == (width,)
    ]
    if not blocks:
        raise ConfigError(f"{prefix} makes {width} channels, and no block has as many")
    return min(blocks)
