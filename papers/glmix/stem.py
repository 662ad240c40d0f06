"""The stem of a GLNet and the steps between its stages, each halving the map."""

from __future__ import annotations

import flax.linen as nn
import jax

from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import activate
from vision.train.precision import Precision


class Reduction(nn.Module):
    """(B, h, w, C) to the grid of the next stage, or images to that of the first.

    Overlapping 3 x 3 convolutions of stride 2, two of them in the stem, each before its norm; in
    Swin's layout patches of 4 x 4 and then a norm, later a norm and then 2 x 2.

    Attributes:
      width: channels of the result.
      first: it is the stem.
      swin: which of the two.
      precision: number formats.
    """

    width: int
    first: bool
    swin: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def reduce(x: jax.Array, channels: int, size: int, stride: int, name: str) -> jax.Array:
            pad = 1 if size == 3 else 0
            return conv(channels, size, stride, 1, pad, True, precision=self.precision, name=name)(
                x
            )

        def norm(x: jax.Array, name: str) -> jax.Array:
            return batch_norm(x, train, self.precision, name)

        if self.swin and self.first:
            return norm(reduce(x, self.width, 4, 4, "conv1"), "norm1")
        if self.swin:
            return reduce(norm(x, "norm1"), self.width, 2, 2, "conv1")
        if self.first:
            x = activate(norm(reduce(x, self.width // 2, 3, 2, "conv1"), "norm1"), "gelu")
            return norm(reduce(x, self.width, 3, 2, "conv2"), "norm2")
        return norm(reduce(x, self.width, 3, 2, "conv1"), "norm1")
