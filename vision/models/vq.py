"""A vector-quantised autoencoder: patches to codebook entries and back to pixels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.conv_layers import conv
from vision.models.layers import activate, as_output, check_images, dense
from vision.models.unet import folded, unfolded
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_LECUN = nn.initializers.lecun_normal()


@checked
class VqAutoencoder(nn.Module):
    """An autoencoder whose bottleneck is one of K vectors per patch.

    van den Oord et al., Neural Discrete Representation Learning, 2017; latents and codebook have
    unit length and few dimensions, as in Yu et al., Vector-quantized Image Modeling with Improved
    VQGAN, 2022.

    Called with images (B, H, W, C), whose sides are multiples of ``patch``, gives ``(embedding,
    out)``: ``stem`` are the patches' features, ``latent`` (B, h, w, code_dim) what is quantised,
    ``ids`` int32 (B, h, w) the nearest entries of the codebook, ``codes`` those entries, ``map``
    the same with the gradient of the latents, ``reconstruction`` (B, H, W, C), and ``pooled`` and
    ``embedding`` the mean of ``map``. Called with integers (B, h, w) it decodes them, to images of
    ``channels`` channels: ``codes``, ``map`` and the later entries.

    Attributes:
      patch: side of a patch in pixels.
      width: channels of encoder and decoder.
      depth: residual 3 x 3 convolutions on the grid of patches, in each of the two.
      codes: K.
      code_dim: of the codebook, whose parameter is ``codebook`` (K, code_dim).
      precision: number formats.
    """

    patch: Positive[int] = 8
    width: Positive[int] = 128
    depth: Positive[int] = 1
    codes: Positive[int] = 391
    code_dim: Positive[int] = 32
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None, channels: int = 3
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        precision = self.precision
        init = nn.initializers.normal(1.0)
        book = self.param("codebook", init, (self.codes, self.code_dim), precision.params)
        book = unit(book.astype(jnp.float32))
        out: dict[str, jax.Array] = {}
        if jnp.issubdtype(x.dtype, jnp.integer):
            out["codes"] = mapped = book[x]
        else:
            check_images(x)
            channels = x.shape[-1]
            if x.shape[1] % self.patch or x.shape[2] % self.patch:
                raise ValueError(
                    f"images of {x.shape[1]} x {x.shape[2]} are not divisible into patches of "
                    f"patch={self.patch}"
                )
            x = dense(folded(x, self.patch), self.width, precision, "stem", _LECUN)
            x = out["stem"] = apply_tap(tap, "stem", x)
            x = self._blocks(x, "encoder")
            latent = dense(activate(x, "gelu"), self.code_dim, precision, "latent", _LECUN)
            latent = out["latent"] = apply_tap(tap, "latent", unit(latent.astype(jnp.float32)))
            # For unit vectors the nearest has the largest inner product.
            out["ids"] = jnp.argmax(latent @ book.T, axis=-1).astype(jnp.int32)
            out["codes"] = book[out["ids"]]
            mapped = latent + jax.lax.stop_gradient(out["codes"] - latent)
        x = out["map"] = apply_tap(tap, "map", mapped)
        pooled = x.mean((1, 2)).astype(precision.output)
        x = dense(x.astype(precision.compute), self.width, precision, "decode", _LECUN)
        x = self._blocks(x, "decoder")
        size = channels * self.patch**2
        x = dense(activate(x, "gelu"), size, as_output(precision), "pixels", _LECUN)
        pixels = constrain_batch(unfolded(x, self.patch))
        out["reconstruction"] = apply_tap(tap, "reconstruction", pixels)
        out["pooled"] = apply_tap(tap, "pooled", pooled)
        out["embedding"] = apply_tap(tap, "embedding", out["pooled"])
        return out["embedding"], out

    @nn.nowrap
    def _blocks(self, x: jax.Array, part: str) -> jax.Array:
        for i in range(self.depth):
            layer = conv(self.width, 3, use_bias=True, precision=self.precision, name=f"{part}{i}")
            x = x + layer(activate(x, "gelu"))
        return x


def unit(x: jax.Array) -> jax.Array:
    """Vectors along the last axis, of length 1."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))
