"""Low-rank adapters of frozen kernels, LoRA and DoRA, as functions on parameter trees.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022; Liu et al., DoRA:
Weight-Decomposed Low-Rank Adaptation, 2024. A kernel W becomes

    V = W + alpha / rank * A B                            LoRA
    V (1 + g) ||W|| / ||V||, norms over the inputs        DoRA

with B and g zero at initialisation, when both equal W bit for bit. DoRA's magnitude is ``(1 + g)
||W||``: relative to W, so that it stays valid when W is loaded from a file. As the authors propose,
no gradient flows through ``||W|| / ||V||``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, Regex, checked
from vision.config.schema import ConfigError
from vision.parallel.mesh import path_of
from vision.train.tower import STACK

Tree = Any

# All dense layers in the blocks of a transformer.
TRANSFORMER_KERNELS = r"blocks?\d*/(attn|mlp)/(qkv|proj|fc1|fc2)/kernel$"


@dataclasses.dataclass(frozen=True)
@checked
class Lora:
    """Which kernels get an adapter, and its size.

    Attributes:
      pattern: regular expression, searched in paths within the tower such as
        ``blocks/attn/qkv/kernel``. Dense layers and convolutions have kernels, one for each layer
        where they are stacked; the inputs of a convolution are height x width x channels.
      rank: number of columns of A and rows of B.
      alpha: the update is multiplied by ``alpha / rank``.
      magnitude: DoRA: also a factor per output, trained separately from the direction.
    """

    pattern: Regex = TRANSFORMER_KERNELS
    rank: Positive[int] = 8
    alpha: Positive[float] = 16.0
    magnitude: bool = False


def init_adapters(adapters: tuple[Lora, ...], params: Tree, key: jax.Array) -> dict[str, Tree]:
    """Initial adapters, which change nothing, under the names of their layers.

    Args:
      adapters: the first whose pattern matches the path of a kernel applies.
      params: nested dicts of a tower's parameters.
      key: of A, which is uniform between -fan_in^-0.5 and fan_in^-0.5.

    Returns:
      Nested dicts in which every adapted layer has ``lora_a`` (layers, ..., rank), ``lora_b``
      (layers, rank, out) and perhaps ``dora_gain`` (layers, out), in the kernel's dtype; without
      ``layers`` where the kernel is not a stack.

    Raises:
      ConfigError: a pattern that applies to no kernel, or a rank above that of a kernel.
    """
    chosen = {path: _choice(adapters, path) for path, _ in _kernels(params)}
    for adapter in adapters:
        if adapter not in chosen.values():
            raise ConfigError(
                f"adapters: {adapter.pattern!r} applies to no kernel of the tower; kernels are "
                f"{', '.join(chosen)}"
            )
    added: dict[str, Tree] = {}
    for path, kernel in _kernels(params):
        adapter = chosen[path]
        if adapter is None:
            continue
        layers, *inputs, outputs = _split(path, kernel.shape)
        if adapter.rank > min(math.prod(inputs), outputs):
            raise ConfigError(
                f"adapters: rank={adapter.rank} is above the rank of {path} of shape {kernel.shape}"
            )
        node = added
        for name in path.split("/")[:-1]:
            node = node.setdefault(name, {})
        bound = math.prod(inputs) ** -0.5
        leaf_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
        shape = (*layers, *inputs, adapter.rank)
        node["lora_a"] = jax.random.uniform(leaf_key, shape, kernel.dtype, -bound, bound)
        node["lora_b"] = jnp.zeros((*layers, adapter.rank, outputs), kernel.dtype)
        if adapter.magnitude:
            node["dora_gain"] = jnp.zeros((*layers, outputs), kernel.dtype)
    return added


def merge_adapters(adapters: tuple[Lora, ...], params: Tree, added: Tree) -> Tree:
    """The parameters of a plain tower equivalent to the adapted one.

    Args:
      adapters: those that ``added`` was initialised for.
      params: nested dicts of a tower's parameters.
      added: adapter parameters as from ``init_adapters``, possibly trained.
    """

    def merge_leaf(key_path: Any, leaf: jax.Array) -> jax.Array:
        path = path_of(key_path)
        adapter = _choice(adapters, path) if path.endswith("kernel") else None
        if adapter is None:
            return leaf
        node = added
        for name in path.split("/")[:-1]:
            node = node[name]
        return _effective(adapter, leaf, _split(path, leaf.shape), node)

    return jax.tree_util.tree_map_with_path(merge_leaf, params)


def _effective(adapter: Lora, kernel: jax.Array, shape: Any, added: Tree) -> jax.Array:
    layers, *inputs, outputs = shape
    matrix = (*layers, math.prod(inputs), outputs)
    base = kernel.astype(jnp.float32).reshape(matrix)
    a = added["lora_a"].astype(jnp.float32).reshape(*matrix[:-1], adapter.rank)
    change = (adapter.alpha / adapter.rank) * (a @ added["lora_b"].astype(jnp.float32))
    total = base + change
    if adapter.magnitude:
        # ||V||^2 / ||W||^2 - 1 is exactly zero at initialisation. A column of zeros has no
        # direction to keep.
        square = jnp.sum(base * base, -2)
        growth = jnp.sum((2 * base + change) * change, -2)
        relative = jnp.where(square > 0, growth / jnp.where(square > 0, square, 1), 0)
        shrink = jax.lax.stop_gradient(jax.lax.rsqrt(jnp.maximum(1 + relative, 1e-12)))
        gain = (1 + added["dora_gain"].astype(jnp.float32)) * shrink
        total = total * gain[..., None, :]
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _kernels(params: Tree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(path_of(p), leaf) for p, leaf in leaves if path_of(p).split("/")[-1] == "kernel"]


def _choice(adapters: tuple[Lora, ...], path: str) -> Lora | None:
    return next((adapter for adapter in adapters if re.search(adapter.pattern, path)), None)


def _split(path: str, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """``((layers,) or (), *inputs, outputs)`` of a kernel."""
    stacked = int(STACK in path.split("/"))
    return (shape[:stacked], *shape[stacked:])
