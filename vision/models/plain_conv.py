"""ConvNet, the small network of dataset distillation: a stack of equal blocks."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, checked
from vision.models.conv_layers import conv
from vision.models.layers import check_images, classify
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class PlainConv(nn.Module):
    """``depth`` blocks of 3 x 3 convolution, instance norm, ReLU and 2 x 2 average pooling.

    Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, 2018, as Zhao et
    al., Dataset Condensation with Gradient Matching, 2021, use it (width 128, depth 3).

    Called with images (B, H, W, C), gives ``(embedding, out)``: ``block00``.. are the maps after
    each ReLU, before they are pooled, (B, h, w, width); ``pooled`` and ``embedding`` are the last
    block's pooled map as a vector, (B, h / 2 * w / 2 * width), or its mean, (B, width); ``logits``
    (B, num_classes) where there is a head.

    Attributes:
      width: channels.
      depth: number of blocks; the image is halved by each, rounded down.
      num_classes: of the head; None for none.
      norm: ``instance``, or ``none``.
      pool: what the head reads: the ``flatten``ed map or its ``mean``.
      head_zero_init: head's kernel starts at zero.
      precision: number formats.
    """

    width: int = 128
    depth: int = 3
    num_classes: NonNegative[int] | None = None
    norm: Literal["instance", "none"] = "instance"
    pool: Literal["flatten", "mean"] = "flatten"
    head_zero_init: bool = False
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        if min(x.shape[1:3]) < 2**self.depth:
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} cannot be halved depth={self.depth} times"
            )
        out: dict[str, jax.Array] = {}
        for i in range(self.depth):
            site = f"block{i:02d}"
            x = conv(self.width, 3, use_bias=True, precision=self.precision, name=f"conv{i}")(x)
            if self.norm == "instance":
                norm = nn.GroupNorm(
                    num_groups=self.width,
                    dtype=self.precision.compute,
                    param_dtype=self.precision.params,
                    name=f"norm{i}",
                )
                x = norm(x)
            x = out[site] = apply_tap(tap, site, constrain_batch(nn.relu(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        if self.pool == "mean":
            x = x.mean((1, 2), dtype=jnp.float32)
        pooled = x.reshape(x.shape[0], -1).astype(self.precision.output)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)
