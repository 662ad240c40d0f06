"""A cosine classifier on a tower."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.blocks.similarity import inner, unit
from vision.config.ranges import NonNegative, Positive, checked
from vision.train.tower import Tap, Tower, apply_tap, layers_above


@checked
class CosineHead(nn.Module):
    """A tower whose logits are ``scale`` times the cosines of its embedding with class vectors.

    Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, 2018. ``out`` is
    the tower's, with ``logits`` float32 (B, num_classes) where there are classes.

    Attributes:
      tower: without a head of its own.
      num_classes: None for no head.
      scale: inverse temperature.
    """

    tower: Tower
    num_classes: NonNegative[int] | None = None
    scale: Positive[float] = 16.0

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return layers_above(self.tower, path[1:]) if path[0] == "tower" else 0

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        embedding, out = self.tower(x, train=train, tap=tap)
        if self.num_classes:
            shape = (self.num_classes, embedding.shape[-1])
            classes = self.param("classes", nn.initializers.lecun_normal(), shape, jnp.float32)
            cosines = inner("bd,cd->bc", unit(embedding), unit(classes))
            logits = apply_tap(tap, "logits", self.scale * cosines)
            out = {**out, "logits": logits}
        return embedding, out
