"""Attention of an image to the other images of its batch, and how alike they look."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.layers import as_output, dense, layer_norm
from vision.train.precision import Precision

_SMALL = nn.initializers.xavier_uniform()


def psnr_similarity(images: jax.Array, valid: jax.Array, side: int = 32) -> jax.Array:
    """How alike every two images of a batch are, float32 (B, B) in [0, 1], 1 on the diagonal.

    The peak signal-to-noise ratio, 10 log10(peak^2 / MSE), between lowest and highest of the
    batch. The peak and the unit of the images drop out of that: only -log(MSE) is computed.

    Args:
      images: (B, H, W, C) float of any range; reduced to ``side`` pixels first.
      valid: (B,) bool, the rows between which lowest and highest are sought; other entries are
        clipped to [0, 1].
      side: in pixels.
    """
    size = (len(images), min(side, images.shape[1]), min(side, images.shape[2]), images.shape[3])
    x = jax.image.resize(images.astype(jnp.float32), size, "linear", antialias=True)
    x = x.reshape(len(x), -1)
    x = x - x.mean(0)  # differences stay, and squares are small beside them
    squares = jnp.sum(x * x, -1)
    error = squares[:, None] + squares - 2 * x @ x.T
    apart = valid[:, None] & valid & ~jnp.eye(len(x), dtype=bool)
    # Two copies of an image differ by rounding, whose logarithm would be all there is to see.
    floor = 1e-5 * jnp.max(jnp.where(apart, error, 0.0)) + 1e-30
    likeness = -jnp.log(jnp.maximum(error, floor))
    low = jnp.min(jnp.where(apart, likeness, jnp.inf))
    high = jnp.max(jnp.where(apart, likeness, -jnp.inf))
    scaled = (likeness - low) / jnp.maximum(high - low, 1e-9)
    scaled = jnp.where(high > low, jnp.clip(scaled, 0, 1), 0.0)  # two images, or one: no scale
    return jnp.where(jnp.eye(len(x), dtype=bool), 1.0, scaled)


@checked
class RelationHead(nn.Module):
    """Features (B, D) and similarities (B, B) to logits (B, K) and refined features (B, D).

        refined = F + proj(softmax(q k^T / sqrt(d) + w R) v),   q, k, v linear in LayerNorm(F)

    ``w`` is one number per head. ``proj`` starts at zero, so that training begins at the plain
    linear head. ``attention`` (heads, B, B) is among Flax's ``intermediates``.

    Attributes:
      num_classes: of the logits.
      heads: of the attention; their number divides D.
      precision: number formats.
    """

    num_classes: Positive[int]
    heads: Positive[int] = 4
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self, features: jax.Array, similarity: jax.Array, visible: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """``visible`` (B, B) bool: which rows a row attends to; one at least."""
        rows, width = features.shape
        if width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide the {width} features")
        precision = as_output(self.precision)
        x = layer_norm(features, precision, "norm")
        parts = [dense(x, width, precision, name, _SMALL) for name in ("query", "key", "value")]
        q, k, v = (part.reshape(rows, self.heads, -1) for part in parts)
        weight = self.param("similarity", nn.initializers.ones, (self.heads,), precision.params)
        logits = jnp.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        logits = logits.astype(jnp.float32) + weight[:, None, None] * similarity
        attention = jax.nn.softmax(jnp.where(visible, logits, -jnp.inf))
        self.sow("intermediates", "attention", attention)
        mixed = jnp.einsum("hqk,khd->qhd", attention.astype(v.dtype), v).reshape(rows, width)
        zeros = nn.initializers.zeros
        refined = features + dense(mixed, width, precision, "proj", zeros)
        return dense(
            refined, self.num_classes, precision, "head", nn.initializers.normal(0.01)
        ), refined
