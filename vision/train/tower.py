"""Towers: how a network is called, what it returns, and how its inside is reached.

A tower is a ``flax.linen`` module called as ``tower(x, train=..., tap=...)`` and returning
``(embedding, out)``. ``out`` is a plain dict with this vocabulary (dual encoders prefix
``image/`` and ``text/``):

    stem        activations after the stem
    block00 ..  output of every block in order, and inside a transformer block
                ``block00/attn`` and ``block00/mlp`` (the two branches before the residual sum);
                ``block00/attention`` (B, heads, N, N) and ``block00/middle``, the tokens after
                attention and before the MLP, exist only when a tap asks for them;
                ``block00/mix`` is what stands in the place of attention in an MLP-Mixer
    tokens      (B, N, D) after the final norm, prefix tokens first
    map         (B, h, w, C) spatial features after the last block (and norm)
    queries     (B, Q, D) what all queries of a pooling by queries give
    pooled      (B, D) after pooling
    embedding   (B, D) what the tower returns first: the input of the classifier head
    logits      (B, num_classes), only with a classifier head

Towers that make something add it: ``reconstruction`` (autoencoders), ``ids`` and ``codes`` (a
tokenizer), ``values`` (a masked decoder), ``noise`` (a denoiser).

Nothing is computed for a name that nobody reads: the compiler drops it.

Reads go through ``out``. Edits and gradients at a site go through a ``Tap``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax

from vision.config.schema import ConfigError

Tree = Any
Tower = nn.Module
STACK = "blocks"  # parameters of blocks that a scan runs: their first axis counts layers


@dataclasses.dataclass(frozen=True)
class Tap:
    """Reads, edits or differentiates intermediates: ``fn(name, x)`` replaces ``x`` at a site.

    Attributes:
      fn: called with the site's name and its array; returns an array to go on with, usually of
        the same shape and dtype. Returning ``x`` itself changes nothing. A gradient at a site
        is the gradient with respect to a zero added there.
      sites: regular expression that must match a site's whole name; other sites are not
        touched. Matching ``blockNN/attention`` makes attention explicit there (slower, more
        memory), since fused attention never materialises its weights.
    """

    fn: Callable[[str, jax.Array], jax.Array]
    sites: str = ".*"

    def wants(self, name: str) -> bool:
        return re.fullmatch(self.sites, name) is not None

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        return self.fn(name, x) if self.wants(name) else x


@runtime_checkable
class Layered(Protocol):
    """A tower that says how deep its layers lie, for learning rates that fall with depth."""

    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """How many layers lie between a parameter and the head.

        Args:
          path: names of the parameter, from the tower down: ``("block00", "mlp", ...)``.

        Returns:
          A number; for a stack of layers, whose parameters' first axis counts them, one each. 0 is
          for the head and for what stands beside the tower's layers.
        """
        ...


def layers_above(tower: Any, path: Sequence[str]) -> int | Sequence[int]:
    """``tower.layers_above(path)``; 0 where ``tower`` is None.

    Raises:
      ConfigError: the tower does not say how deep its layers lie.
    """
    if tower is None:
        return 0
    if not isinstance(tower, Layered):
        raise ConfigError(
            f"config.optimizer.layer_decay: {type(tower).__name__} does not say how deep its "
            "layers lie; leave layer_decay at 1, or give the tower a method layers_above"
        )
    return tower.layers_above(path)


def chain_layers_above(
    name: str, blocks: int, stem: tuple[str, ...], between: Mapping[str, int] | None = None
) -> int | Sequence[int]:
    """``Layered.layers_above`` of a tower that is a stem, blocks one after the other, and a head.

    Its embeddings lie L + 1 layers below the head, block i of L (from 0) L - i, a layer between
    two blocks as many as the block after it, the last ``norm`` 1 like the last block, and
    everything else 0: head, pooling, norms after pooling. Those are the groups of timm's
    ``param_groups_layer_decay``, but that its ConvNeXt counts the last norm as 0.

    Args:
      name: of the parameter's module at the top of the tower.
      blocks: L; they are called ``block00`` and so on, or stacked ``blocks``.
      stem: how names of the stem begin.
      between: how names of layers between blocks begin, and the number of the block after them.
    """
    if name == STACK:
        return range(blocks, 0, -1)
    if name.startswith("block"):
        return blocks - int(name.removeprefix("block"))
    if name.startswith(stem):
        return blocks + 1
    for prefix, block in (between or {}).items():
        if name.startswith(prefix):
            return blocks - block
    return 1 if name == "norm" else 0


def apply_tap(tap: Tap | None, name: str, x: jax.Array) -> jax.Array:
    """``x`` after ``tap`` had its say at site ``name``; ``x`` itself without a tap."""
    return x if tap is None else tap(name, x)


def wants(tap: Tap | None, name: str) -> bool:
    return tap is not None and tap.wants(name)


@dataclasses.dataclass(frozen=True)
class Tapped:
    """A tower that is called with ``tap``, also by those who know nothing of it.

    A tap that the caller gives has its say first.

    Attributes:
      tower: any.
      tap: applied in every call, after the caller's.
    """

    tower: Tower
    tap: Tap

    def apply(self, *args: Any, tap: Tap | None = None, **kwargs: Any) -> Any:
        own = self.tap
        if tap is not None:
            both = f"({tap.sites})|({own.sites})"
            own = Tap(lambda name, x: self.tap(name, tap(name, x)), both)
        return self.tower.apply(*args, tap=own, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tower, name)


def initialise(
    module: nn.Module, key: jax.Array, *inputs: Any, **kwargs: Any
) -> tuple[Tree, Mapping[str, Tree]]:
    """Fresh ``(params, model_state)``; ``model_state`` holds BatchNorm statistics and the like."""
    variables = dict(module.init({"params": key}, *inputs, train=False, **kwargs))
    params = variables.pop("params", {})
    return params, variables


def forward(
    module: nn.Module,
    params: Tree,
    model_state: Mapping[str, Tree],
    *inputs: Any,
    train: bool,
    key: jax.Array | None = None,
    tap: Tap | None = None,
    **kwargs: Any,
) -> tuple[jax.Array, dict[str, jax.Array], Mapping[str, Tree]]:
    """Calls a tower. Returns ``(embedding, out, model_state)``.

    Args:
      module: the tower.
      params: its parameters.
      model_state: its other collections, as ``initialise`` gave them.
      *inputs: images, tokens: whatever the tower takes.
      train: training behaviour (dropout on, BatchNorm statistics from the batch and updated).
      key: randomness for dropout and stochastic depth; needed when ``train``.
      tap: see ``Tap``.
      **kwargs: further arguments of this tower.
    """
    variables = {"params": params, **model_state}
    rngs = {} if key is None else {"dropout": key}
    mutable = list(model_state) if train else []
    (embedding, out), updated = module.apply(  # pyright: ignore[reportGeneralTypeIssues]
        variables, *inputs, train=train, tap=tap, rngs=rngs, mutable=mutable, **kwargs
    )
    return embedding, out, {**model_state, **updated}


def count_params(params: Tree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
