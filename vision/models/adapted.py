"""A pretrained tower with parameter-efficient fine-tuning: adapters, prompts, frozen statistics."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.blocks.adapters import Lora, init_adapters, merge_adapters
from vision.config.ranges import Positive, checked
from vision.train.precision import Precision
from vision.train.tower import STACK, Tap, Tower, Tree, apply_tap, layers_above


@dataclasses.dataclass(frozen=True)
@checked
class Prompts:
    """Learned tokens that a transformer reads beside those of the image.

    Jia et al., Visual Prompt Tuning, 2022. They are appended to the other tokens from ``stem`` to
    the last block, and removed before ``tokens``.

    Attributes:
      tokens: number of prompt tokens.
      deep: new prompts before every block, replacing the outputs of those before; otherwise only
        before the first. A tower that scans its blocks runs them one by one then.
      side: ``image/`` or ``text/`` of a dual encoder.
    """

    tokens: Positive[int] = 10
    deep: bool = True
    side: str = ""


class AdaptedTower(nn.Module):
    """``tower`` with its parameters modified by few additional ones.

    The tower's variables are below ``tower``, under their usual names, and
    ``InitFrom(source, into="tower")`` loads them. The optimizer's rules say what is trained; these
    train the adapters and a new head only::

        Rule(r"model/(adapters|prompts)|/head/"), Rule(".*", learning_rate=0)

    ``merged`` returns the plain tower. Kernels with an adapter are recomputed in every step, so
    their gradient takes as much memory as those kernels, but they have no optimizer state.

    Attributes:
      tower: the pretrained tower.
      adapters: kernels that get a low-rank update, below ``adapters`` under the names of the
        layers. At initialisation the output is bitwise that of the tower.
      prompts: tokens for a ViT, ``prompts`` (1 or blocks, tokens, D). A tap sees them after the
        others in ``stem`` and in the blocks.
      frozen_statistics: BatchNorm uses its running statistics in training too, and does not update
        them.
      num_classes: of the tower, where it has None.
    """

    tower: Tower
    adapters: tuple[Lora, ...] = ()
    prompts: Prompts | None = None
    frozen_statistics: bool = False
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.num_classes is not None and getattr(self.tower, "num_classes", 0) is None:
            self.tower = self.tower.clone(num_classes=self.num_classes)
        super().__post_init__()

    @property
    def precision(self) -> Precision:
        """Of the tower."""
        return getattr(self.tower, "precision", Precision())

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        # Adapters lie under the names of the layers whose kernels they change.
        inside = path[0] in ("tower", "adapters")
        return layers_above(self.tower, path[1:]) if inside else 0

    @nn.compact
    def __call__(
        self, inputs: Any, *, train: bool = False, tap: Tap | None = None, **kwargs: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        # Its variables are assembled here, so it cannot be a submodule.
        tower = self.tower.clone(parent=None, name=None)
        if self.is_initializing():
            self._initialise(tower, inputs, kwargs)
        params = self.variables["params"]
        state = {k: tree["tower"] for k, tree in self.variables.items() if k != "params"}
        merged = params["tower"]
        if self.adapters:
            merged = merge_adapters(self.adapters, merged, params["adapters"])
        if self.prompts is not None:
            tap = _Prompting.tap(self.prompts, params["prompts"], tap)
        changing = train and not self.frozen_statistics
        result, updated = tower.apply(
            {"params": merged, **state},
            inputs,
            train=train,
            tap=tap,
            rngs={"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else {},
            mutable=[name for name in state if changing and self.is_mutable_collection(name)],
            **kwargs,
        )
        for name, tree in updated.items():
            self.put_variable(name, "tower", tree)
        return result  # pyright: ignore[reportReturnType]

    @nn.nowrap
    def _initialise(self, tower: Tower, inputs: Any, kwargs: Mapping[str, Any]) -> None:
        keys = jax.random.split(self.make_rng("params"), 3)
        (_, out), variables = tower.init_with_output(
            {"params": keys[0]}, inputs, train=False, **kwargs
        )
        for collection, tree in variables.items():
            self.put_variable(collection, "tower", tree)
        params = variables["params"]
        if self.adapters:
            self.put_variable("params", "adapters", init_adapters(self.adapters, params, keys[1]))
        if self.prompts is not None:
            stem, blocks = out.get(f"{self.prompts.side}stem"), _count_blocks(params, self.prompts)
            if stem is None or stem.ndim != 3 or not blocks:
                raise ValueError(
                    f"prompts are for the tokens of a transformer, but {self.prompts.side}stem of "
                    f"{type(tower).__name__} has none"
                )
            shape = (blocks if self.prompts.deep else 1, self.prompts.tokens, stem.shape[-1])
            init = nn.initializers.normal(0.02)
            self.put_variable("params", "prompts", init(keys[2], shape, self.precision.params))


def merged(model: Tower, variables: Mapping[str, Tree]) -> tuple[Tower, dict[str, Tree]]:
    """The plain tower within an ``AdaptedTower``, and its variables; any other model unchanged.

    Args:
      model: a tower.
      variables: its ``{"params": tree, "model_state": tree}``.

    Raises:
      ValueError: the model has prompts, which cannot be merged.
    """
    if not isinstance(model, AdaptedTower):
        return model, dict(variables)
    if model.prompts is not None:
        raise ValueError("prompts cannot be merged into a plain tower")
    params = variables["params"]
    state = {key: tree["tower"] for key, tree in variables["model_state"].items()}
    merge = jax.jit(lambda base, added: merge_adapters(model.adapters, base, added))
    base = merge(params["tower"], params["adapters"]) if model.adapters else params["tower"]
    return merged(model.tower, {"params": base, "model_state": state})


@dataclasses.dataclass(frozen=True)
class _Prompting(Tap):
    """Appends prompts at the stem, replaces them between blocks, and removes them at the end."""

    after: Tap | None = None

    @classmethod
    def tap(cls, prompts: Prompts, values: jax.Array, after: Tap | None) -> _Prompting:
        count, side = prompts.tokens, prompts.side

        def edit(name: str, x: jax.Array) -> jax.Array:
            site = name.removeprefix(side)
            if site == "tokens":
                return x[:, :-count]
            layer = 0 if site == "stem" else int(site.removeprefix("block")) + 1
            rows = jnp.broadcast_to(values[layer].astype(x.dtype), (x.shape[0], *values.shape[1:]))
            return jnp.concatenate([x if layer == 0 else x[:, :-count], rows], axis=1)

        blocks = [f"block{i:02d}" for i in range(len(values) - 1)]
        sites = "|".join(["stem", "tokens", *blocks])
        return cls(edit, f"{re.escape(side)}({sites})", after)

    def wants(self, name: str) -> bool:
        return super().wants(name) or (self.after is not None and self.after.wants(name))

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        return apply_tap(self.after, name, self.fn(name, x) if super().wants(name) else x)


def _count_blocks(params: Mapping[str, Tree], prompts: Prompts) -> int:
    part = params[prompts.side.removesuffix("/")] if prompts.side else params
    if STACK in part:
        return jax.tree.leaves(part[STACK])[0].shape[0]
    return sum(re.fullmatch(r"block\d+", name) is not None for name in part)
