"""Batch ops for images that were decoded beforehand: crop, normalise and mask on the device.

Called as ``op(batch, key) -> batch``, like those of ``vision.data.batch_ops``. Boxes and masks of a
batch do not follow: crop on the host (``vision.data.ops``) where there are any.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from vision.data.ops.base import check_probability, check_range

Batch = Mapping[str, jax.Array]
_KERNELS = {
    "linear": jax.image.ResizeMethod.LINEAR,
    "cubic": jax.image.ResizeMethod.CUBIC,
    "lanczos3": jax.image.ResizeMethod.LANCZOS3,
}


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area and aspect ratio per example, resized to ``size``.

    Areas and ratios are distributed as in ``vision.data.ops.RandomResizedCrop``, with two
    differences: the box has fractional corners, and a ratio that does not fit is clipped to the
    image instead of drawn again. Resized by ``jax.image.scale_and_translate``: half-pixel
    centres, cubic with a = -0.5. uint8 comes out as rounded uint8, floats as float32.

    Attributes:
      size: side, or (height, width), of the result.
      scale: range of the box's share of the image.
      ratio: range of width / height.
      method: ``linear``, ``cubic`` or ``lanczos3``.
      antialias: widen the kernel when shrinking.
      image_key: the image feature, [B, H, W, C] uint8 or float.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    method: Literal["linear", "cubic", "lanczos3"] = "linear"
    antialias: bool = True
    image_key: str = "image"

    def __post_init__(self) -> None:
        check_range("scale", self.scale)
        check_range("ratio", self.ratio)
        if self.method not in _KERNELS:
            raise ValueError(f"method={self.method!r}: valid methods are {', '.join(_KERNELS)}")

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = batch[self.image_key]
        count, rows, columns, channels = image.shape
        to = (self.size, self.size) if isinstance(self.size, int) else self.size
        boxes = self.draw(key, count, rows, columns)

        def cut(one: jax.Array, box: jax.Array) -> jax.Array:
            scale = jnp.array(to) / box[2:]
            return jax.image.scale_and_translate(
                one.astype(jnp.float32),
                (*to, channels),
                (0, 1),
                scale,
                -box[:2] * scale,
                _KERNELS[self.method],
                antialias=self.antialias,
            )

        out = jax.vmap(cut)(image, boxes)
        if image.dtype == jnp.uint8:
            out = jnp.clip(jnp.round(out), 0, 255).astype(jnp.uint8)
        return {**batch, self.image_key: out}

    def draw(self, key: jax.Array, count: int, rows: int, columns: int) -> jax.Array:
        """float32 (count, 4): top, left, height, width in pixels, inside the image."""
        u, v, y, x = jax.random.uniform(key, (4, count))
        area = rows * columns * (self.scale[0] + u * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        aspect = jnp.exp(low + v * (high - low))
        height = jnp.minimum(jnp.sqrt(area / aspect), rows)
        width = jnp.minimum(jnp.sqrt(area * aspect), columns)
        return jnp.stack([y * (rows - height), x * (columns - width), height, width], axis=1)


@dataclasses.dataclass(frozen=True)
class Normalize:
    """float32 (x - mean) / std per channel, in the value range that ``ValueRange`` gave.

    The defaults are ImageNet's statistics for RGB in 0..1.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    image_key: str = "image"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(
                f"mean={self.mean}, std={self.std}: one mean and one positive std per channel"
            )

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = batch[self.image_key]
        if not jnp.issubdtype(image.dtype, jnp.floating) or image.shape[-1] != len(self.mean):
            raise ValueError(
                f"Normalize: {self.image_key!r} is {image.dtype}{list(image.shape)}, expected "
                f"floats with {len(self.mean)} channels; put ValueRange first"
            )
        out = (image - jnp.array(self.mean)) / jnp.array(self.std)
        return {**batch, self.image_key: out.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class TokenMask:
    """``mask`` bool (B, tokens), True where hidden: the same number in every row.

    Attributes:
      tokens: number of tokens or patches, in raster order.
      share: of hidden ones; their number is tokens - int(tokens (1 - share)), as in MAE.
      out: the feature that is made.
      like: a feature that tells the number of rows.
    """

    tokens: int
    share: float = 0.75
    out: str = "mask"
    like: str = "image"

    def __post_init__(self) -> None:
        check_probability("share", self.share)
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens}: must be positive")

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        hidden = self.tokens - int(self.tokens * (1 - self.share))
        noise = jax.random.uniform(key, (batch[self.like].shape[0], self.tokens))
        rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
        return {**batch, self.out: rank < hidden}
