"""A prompting block of TransHP and its coarse classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, checked
from vision.train.tower import Tap


@dataclasses.dataclass(frozen=True)
@checked
class Level:
    """A prompting block.

    Attributes:
      block: index, from 0.
      ancestors: the coarse class, 0.., of every fine class. Fine classes without one on this level
        share an additional index.
      weight: lambda.
    """

    block: NonNegative[int]
    ancestors: tuple[int, ...]
    weight: NonNegative[float] = 1.0

    def __post_init__(self) -> None:
        if set(self.ancestors) != set(range(self.classes)):
            raise ValueError(f"ancestors={self.ancestors}: numbers 0.. without a gap")

    @property
    def classes(self) -> int:
        return max(self.ancestors, default=-1) + 1

    @property
    def site(self) -> str:
        return f"block{self.block:02d}"

    @property
    def before(self) -> str:
        """The site after which the prompts are appended."""
        return f"block{self.block - 1:02d}" if self.block else "stem"


def prompting_tap(levels: Sequence[Level], tokens: Sequence[jax.Array], absorb: bool) -> Tap:
    """Appends the prompts before every prompting block, and drops them from its output.

    Args:
      levels: the prompting blocks.
      tokens: (B, n, D) prompts of each.
      absorb: whether the image's tokens attend to them.
    """
    appended = {level.before: rows for level, rows in zip(levels, tokens, strict=True)}
    dropped = {level.site: level.classes for level in levels}
    separated = {} if absorb else {f"{site}/attention": n for site, n in dropped.items()}

    def edit(name: str, x: jax.Array) -> jax.Array:
        if name in separated:
            prompts = jnp.arange(x.shape[-1]) >= x.shape[-1] - separated[name]
            x = jnp.where(~prompts[:, None] & prompts, 0, x)
            return x / x.sum(-1, keepdims=True)
        if name in dropped:
            x = x[:, : -dropped[name]]
        if name in appended:
            x = jnp.concatenate([x, appended[name].astype(x.dtype)], axis=1)
        return x

    return Tap(edit, "|".join({**appended, **dropped, **separated}))
