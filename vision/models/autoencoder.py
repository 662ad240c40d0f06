"""A convolutional autoencoder: three halvings to a bottleneck, and back."""

from __future__ import annotations

import flax.linen as nn
import jax

from vision.config.ranges import Positive, checked
from vision.models.conv_layers import batch_norm, conv
from vision.models.layers import check_images
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class ConvAutoencoder(nn.Module):
    """3 x 3 convolution, BatchNorm, ReLU and 2 x 2 max pooling, once per width, and mirrored.

    Called with images (B, H, W, C), gives ``(embedding, out)``: ``block00``.. are the maps after
    each pooling, ``map`` the last of them, ``embedding`` its numbers as a vector, and
    ``reconstruction`` (B, H, W, C) in 0..1, of the output dtype.

    Attributes:
      widths: channels of the encoder's blocks; each halves the image, whose sides must allow it.
      precision: number formats.
    """

    widths: tuple[Positive[int], ...] = (32, 64, 128)
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        if any(side % 2 ** len(self.widths) for side in x.shape[1:3]):
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} cannot be halved {len(self.widths)} times "
                "and put together again: give sizes that are multiples of "
                f"{2 ** len(self.widths)}, or fewer widths"
            )
        out: dict[str, jax.Array] = {}
        channels = x.shape[-1]

        def block(x: jax.Array, width: int, name: str) -> jax.Array:
            x = conv(width, 3, precision=self.precision, name=f"{name}_conv")(x)
            x = batch_norm(x, train, self.precision, f"{name}_norm")
            return constrain_batch(nn.relu(x))

        for i, width in enumerate(self.widths):
            site = f"block{i:02d}"
            x = nn.max_pool(block(x, width, f"encoder{i}"), (2, 2), (2, 2))
            x = out[site] = apply_tap(tap, site, x)
        x = out["map"] = apply_tap(tap, "map", x)
        vector = x.reshape(x.shape[0], -1).astype(self.precision.output)
        embedding = out["embedding"] = apply_tap(tap, "embedding", vector)
        x = embedding.reshape(x.shape).astype(self.precision.compute)
        for i, width in enumerate(reversed(self.widths)):
            x = block(x.repeat(2, 1).repeat(2, 2), width, f"decoder{i}")
        x = conv(channels, 3, use_bias=True, precision=self.precision, name="out")(x)
        x = nn.sigmoid(x.astype(self.precision.output))
        out["reconstruction"] = apply_tap(tap, "reconstruction", x)
        return embedding, out
