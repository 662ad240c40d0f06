"""The last block, which mixes the class tokens of an image and its crop."""

from __future__ import annotations

import flax.linen as nn
import jax

from vision.models.layers import as_output, dense, layer_norm
from vision.models.transformer import Block
from vision.train.precision import Precision

HEAD = 64  # channels of a head of the last block


class Aggregator(nn.Module):
    """Class tokens (B, V, D) of several views to logits (B, K) and an embedding (B, D).

    Attributes:
      num_classes: of the logits.
      precision: number formats.
    """

    num_classes: int
    precision: Precision

    @nn.compact
    def __call__(self, views: jax.Array) -> tuple[jax.Array, jax.Array]:
        width, precision = views.shape[-1], as_output(self.precision)
        block = Block(max(1, width // HEAD), 4 * width, 0.0, None, True, precision, None)
        mixed, _ = block(views, None)
        first = layer_norm(mixed, precision, "norm")[:, 0]
        return dense(first, self.num_classes, precision, "head", nn.initializers.zeros), first
