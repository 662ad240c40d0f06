"""VGG with 11 to 19 layers, with and without BatchNorm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.conv_layers import WidthMultiplier, batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import (
    check_images,
    classify,
    dropout,
    pooled_map,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

Depth = Literal[11, 13, 16, 19]

# depth: convolutions of each stage.
STAGES: Mapping[int, tuple[int, int, int, int, int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class ConvBlock(nn.Module):
    """relu(3x3 convolution(x)), with BatchNorm between the two or without.

    Attributes:
      channels: that it gives.
      batch_norm: between convolution and ReLU.
      precision: number formats.
    """

    channels: int
    batch_norm: bool
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = conv(self.channels, 3, use_bias=True, precision=self.precision, name="conv")
        x = layer(x)
        if self.batch_norm:
            x = batch_norm(x, train, self.precision, "norm")
        return nn.relu(x)


def at_least(x: jax.Array, side: int) -> jax.Array:
    """(B, h, w, C) with axes shorter than ``side`` stretched to it.

    Position i of n to m is the mean of positions floor(i n / m) to ceil((i + 1) n / m), as in
    PyTorch's adaptive average pooling.
    """
    for axis, short in ((1, "bhwc,Hh->bHwc"), (2, "bhwc,Ww->bhWc")):
        n = x.shape[axis]
        if n < side:
            means = np.zeros((side, n), np.float32)
            for i in range(side):
                window = slice(i * n // side, -(-(i + 1) * n // side))
                means[i, window] = 1 / len(range(n)[window])
            x = jnp.einsum(short, x, jnp.asarray(means, x.dtype))
    return x


@checked
class VGG(nn.Module):
    """VGG (Simonyan and Zisserman, 2015), its dense layers as convolutions over the last map.

    Called with (B, h, w, C) floating-point images, of 32 px at least, it returns ``(embedding,
    out)`` as documented in ``vision.train.tower``. ``stem`` is the first convolution after its ReLU
    and ``block00`` to ``block11``, for 16 layers, are the others, before max pooling. ``map`` is
    the last pooling's result, ``tokens`` the same with its positions flattened. The two hidden
    layers are applied to its windows of 7x7 (one, for images of 224 px); ``pooled`` is the mean
    over windows. ``embedding`` is ``pooled`` after dropout. ``pooled``, ``embedding`` and
    ``logits`` are of the output dtype, everything else is of the compute dtype.

    Attributes:
      depth: number of layers, the three dense ones included: configurations A, B, D and E.
      num_classes: classes of the head; None and 0 both mean no head.
      batch_norm: BatchNorm after every convolution, which the paper does not have.
      width_multiplier: multiplies the channels of the convolutions.
      hidden: width of the two hidden layers: of the embedding.
      window: side of the first hidden layer's window on the map; smaller maps are stretched.
      dropout: rate after each hidden layer; 0.5 in the paper.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    depth: Depth = 16
    num_classes: NonNegative[int] | None = None
    batch_norm: bool = False
    width_multiplier: WidthMultiplier = 1.0
    hidden: Positive[int] = 4096
    window: Positive[int] = 7
    dropout: Rate = 0.5
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], sum(STAGES[self.depth]) - 1, ("stem",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        if min(x.shape[1:3]) < 32:
            raise ValueError(
                f"image of {x.shape[1]}x{x.shape[2]} is smaller than the total stride 32: resize "
                "the images"
            )
        keys: list[jax.Array | None] = [None, None]
        if train and self.dropout:
            keys = list(jax.random.split(self.make_rng("dropout")))
        out: dict[str, jax.Array] = {}
        sites = ["stem", *(f"block{i:02d}" for i in range(sum(STAGES[self.depth]) - 1))]
        names = iter(sites)
        for count, channels in zip(STAGES[self.depth], CHANNELS, strict=True):
            for _ in range(count):
                site = next(names)
                block = ConvBlock(
                    int(channels * self.width_multiplier),
                    self.batch_norm,
                    self.precision,
                    name=site,
                )
                x = out[site] = apply_tap(tap, site, constrain_batch(block(x, train)))
            x = max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))

        x, out = spatial_sites(x, out, tap)
        x = at_least(x, self.window)
        layer = conv(
            self.hidden,
            self.window,
            padding="VALID",
            use_bias=True,
            precision=self.precision,
            name="fc1",
        )
        x = dropout(nn.relu(constrain_batch(layer(x))), keys[0], self.dropout)
        layer = conv(self.hidden, 1, use_bias=True, precision=self.precision, name="fc2")
        x = nn.relu(constrain_batch(layer(x)))
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        embedding = dropout(pooled, keys[1], self.dropout)
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, self.precision)
