"""DenseNet-BC, 121 to 201 layers and free sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked, one_of
from vision.models.conv_layers import batch_norm, conv
from vision.models.convolution import max_pool
from vision.models.layers import (
    Remat,
    block_keys,
    check_images,
    classify,
    dropout,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above, wants

Stem = Literal["imagenet", "cifar"]

# name: layers of each dense block, growth rate.
VARIANTS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "121": ((6, 12, 24, 16), 32),
    "161": ((6, 12, 36, 24), 48),
    "169": ((6, 12, 32, 32), 32),
    "201": ((6, 12, 48, 32), 32),
}
_INIT = nn.initializers.he_normal()


class DenseLayer(nn.Module):
    """The new channels of one layer, from all earlier ones, ``parts``.

    They are passed unconcatenated, so that rematerialisation keeps each once: every layer would
    keep its own copy of a concatenation (Pleiss et al., Memory-Efficient DenseNets, 2017).

    Attributes:
      growth: channels that it adds.
      bottleneck: channels of its 1x1 convolution over ``growth``.
      dropout: of what it adds.
      precision: number formats.
    """

    growth: int
    bottleneck: int
    dropout: float
    precision: Precision

    @nn.compact
    def __call__(
        self, parts: tuple[jax.Array, ...], key: jax.Array | None, train: bool
    ) -> jax.Array:
        x = jnp.concatenate(parts, axis=-1)
        for i, (channels, kernel) in enumerate(
            [(self.bottleneck * self.growth, 1), (self.growth, 3)], 1
        ):
            x = nn.relu(batch_norm(x, train, self.precision, f"norm{i}"))
            layer = conv(
                channels, kernel, precision=self.precision, name=f"conv{i}", kernel_init=_INIT
            )
            x = layer(x)
        return dropout(x, key, self.dropout)


@checked
class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al., Densely Connected Convolutional Networks, 2017).

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Layers count through all dense blocks, ``block00`` to ``block57``
    for 121, and their output is all channels so far: those that went in, then the new ones. ``map``
      is
    the last one's output after the final BatchNorm and ReLU, (B, h, w, C), and ``tokens`` the same
    with its positions flattened. ``pooled``, ``embedding`` and ``logits`` are of the output dtype,
    everything else is of the compute dtype.

    Attributes:
      variant: sizes, one of ``VARIANTS``.
      layers: of each dense block; overrides the variant, or stands without one. Between blocks
        channels, height and width are halved.
      growth: channels that a layer adds; likewise. The stem has twice as many.
      num_classes: classes of the head; None and 0 both mean no head.
      stem: ``imagenet``: 7x7 convolution of stride 2, then 3x3 max pooling of stride 2;
        ``cifar``: 3x3 convolution of stride 1, no pooling, for images of about 32 px.
      bottleneck: a layer's 1x1 convolution has this many times ``growth`` channels.
      dropout: rate after each layer; 0.2 in the paper where there is no augmentation.
      remat: what a layer keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions.
      precision: number formats of parameters, computation and outputs. Statistics are float32.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    variant: Annotated[str, one_of(VARIANTS)] | None = None
    layers: NonEmpty[tuple[Positive[int], ...]] | None = None
    growth: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    stem: Stem = "imagenet"
    bottleneck: Positive[int] = 4
    dropout: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        self.resolved()
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> tuple[tuple[int, ...], int]:
        """Layers and growth that the variant and the fields amount to."""
        if self.variant is None and (self.layers is None or self.growth is None):
            raise ValueError(
                "DenseNet without a variant needs layers and growth; or set variant to one of "
                f"{', '.join(VARIANTS)}"
            )
        layers, growth = VARIANTS.get(self.variant or "", ((), 0))
        layers = layers if self.layers is None else self.layers
        growth = growth if self.growth is None else self.growth
        return layers, growth

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        layers = self.resolved()[0]
        between = {f"transition{i}_": sum(layers[:i]) for i in range(1, len(layers))}
        return chain_layers_above(path[0], sum(layers), ("stem_",), between)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        layers, growth = self.resolved()
        total = 2 ** (len(layers) - 1) * (4 if self.stem == "imagenet" else 1)
        if min(x.shape[1:3]) < total:
            raise ValueError(
                f"image of {x.shape[1]}x{x.shape[2]} is smaller than the total stride {total}: "
                "resize the images, or set stem='cifar'"
            )
        keys = block_keys(self, self.dropout, sum(layers), train)

        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(
            2 * growth,
            kernel,
            stride,
            precision=self.precision,
            name="stem_conv",
            kernel_init=_INIT,
        )(x)
        x = nn.relu(batch_norm(x, train, self.precision, "stem_norm"))
        if self.stem == "imagenet":
            x = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = apply_tap(tap, "stem", constrain_batch(x))
        out = {"stem": x}

        layer_type = rematerialise(DenseLayer, self.remat, static=(3,))
        i = 0
        for block, count in enumerate(layers):
            if block > 0:
                x = nn.relu(batch_norm(x, train, self.precision, f"transition{block}_norm"))
                x = conv(
                    x.shape[-1] // 2,
                    1,
                    precision=self.precision,
                    name=f"transition{block}_conv",
                    kernel_init=_INIT,
                )(x)
                x = nn.avg_pool(constrain_batch(x), (2, 2), (2, 2))
            parts = (x,)
            for _ in range(count):
                site = f"block{i:02d}"
                layer = layer_type(growth, self.bottleneck, self.dropout, self.precision, name=site)
                parts = (*parts, constrain_batch(layer(parts, keys[i], train)))
                x = out[site] = apply_tap(tap, site, jnp.concatenate(parts, axis=-1))
                if wants(tap, site):
                    parts = (x,)
                i += 1

        x = nn.relu(batch_norm(x, train, self.precision, "norm"))
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
