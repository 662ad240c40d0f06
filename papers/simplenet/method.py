"""SimpleNet: thirteen plain layers, pooled late, with dropout after every one.

Each layer is a convolution, BatchNorm, ReLU and dropout,

    x_l = dropout(ReLU(BN(W_l * x_{l-1} + b_l)), p),

3 x 3 but for two of 1 x 1 near the end. Width grows slowly in homogeneous groups, the first max
pooling comes after four layers, and nothing skips a layer. A linear head reads the global maximum
of the last map. The authors' rules: widen gradually, group layers of one width, pool late, prefer 3
x 3 and use 1 x 1 only late, and add depth until it stops helping.

Hasanpour et al., Lets keep it simple, Using simple architectures to outperform deeper and more
complex architectures, 2016. Headline: 95.51 % on CIFAR-10 with 5.48 million parameters, 78.37 % on
CIFAR-100; later 72.03 % on ImageNet with 5.7 million.

Differences from the authors' code: dropout drops single values in every layer, as their Caffe
prototxt does (their PyTorch port drops channels, with a rate per layer); the last pooling takes the
maximum of the whole map, which for images of 32 px is their 2 x 2 pooling; the ImageNet networks,
which replace poolings by strides, are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax

from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import check_images, classify, dropout
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

Variant = Literal["5m", "310k"]

# (channels, kernel size) of every layer.
LAYERS: Mapping[str, tuple[tuple[int, int], ...]] = {
    variant: tuple(zip(channels, (3,) * 10 + (1, 1, 3), strict=True))
    for variant, channels in {
        "5m": (64, 128, 128, 128, 128, 128, 256, 256, 256, 512, 2048, 256, 256),
        "310k": (64, 32, 32, 32, 32, 32, 64, 64, 64, 128, 256, 64, 64),
    }.items()
}
# Layers after which the authors' networks of 32 px pool by 2; the last pooling is global.
POOLS = (4, 7, 9, 12)


class SimpleNet(nn.Module):
    """See the module. Called with images (B, H, W, C), floating-point.

    ``block00`` to ``block12`` are the maps of the layers, before they are pooled; ``map`` is the
    last one; ``pooled`` and ``embedding`` (B, D) its maximum over positions.

    Attributes:
      variant: of the paper: 5.48 million parameters or 310 thousand, for CIFAR-10.
      layers: (channels, kernel size) of every layer, in the place of the variant's.
      pools: numbers of layers, counted from 1, after which the map is halved by max pooling.
      num_classes: of the head; None for none.
      dropout: rate after every layer.
      precision: number formats.
      head_zero_init: the head's kernel starts at zero.
    """

    variant: Variant = "5m"
    layers: tuple[tuple[int, int], ...] | None = None
    pools: tuple[int, ...] = POOLS
    num_classes: int | None = None
    dropout: float = 0.2
    precision: Precision = Precision()
    head_zero_init: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        if min(x.shape[1:3]) < 2 ** len(self.pools):
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} cannot be halved {len(self.pools)} times: "
                "give fewer pools"
            )
        out: dict[str, jax.Array] = {}
        for i, (channels, size) in enumerate(self.layers or LAYERS[self.variant]):
            layer = conv(
                channels, size, use_bias=True, precision=self.precision, name=f"conv{i:02d}"
            )
            x = nn.relu(batch_norm(layer(x), train, self.precision, f"norm{i:02d}"))
            key = self.make_rng("dropout") if train and self.dropout else None
            x = constrain_batch(dropout(x, key, self.dropout))
            x = out[f"block{i:02d}"] = apply_tap(tap, f"block{i:02d}", x)
            if i + 1 in self.pools:
                x = max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))
        out["map"] = x
        pooled = x.max((1, 2)).astype(self.precision.output)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)


def early_pooling(
    parameters: int, num_classes: int, channels: int = 1
) -> tuple[tuple[int, int], ...]:
    """Two 3 x 3 layers, the second twice as wide as the first, of about so many parameters.

    The rival that breaks the rules: with ``pools=(1, 2)`` it pools after every layer.
    """
    width = 1
    while _count(width + 1, num_classes, channels) <= parameters:
        width += 1
    return ((width, 3), (2 * width, 3))


def _count(width: int, num_classes: int, channels: int) -> int:
    weights = 9 * width * channels + 9 * 2 * width**2 + 2 * width * num_classes
    return weights + 3 * 3 * width + num_classes  # and bias, scale and shift of every channel
