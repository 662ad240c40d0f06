"""A tower with batch statistics that compiles in no time: one layer, BatchNorm, a head."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from vision.models.conv_layers import batch_norm
from vision.train.precision import Precision


class NormTower(nn.Module):
    """Called with (B, h, w, C) float images of one size; ``out`` has ``logits``."""

    num_classes: int
    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        x = nn.Dense(self.width, name="layer")(x.reshape(len(x), -1))
        x = nn.relu(batch_norm(x, train, Precision(), "norm"))
        return x, {"logits": nn.Dense(self.num_classes, name="head")(x)}
