"""A classifier that knows directions only."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.blocks.similarity import inner, unit
from vision.models.layers import check_num_classes
from vision.train.tower import Tap, Tower, apply_tap


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
    num_classes: int | None = None
    scale: float = 16.0

    def __post_init__(self) -> None:
        check_num_classes(self.num_classes)
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale}: must be positive")
        super().__post_init__()

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
