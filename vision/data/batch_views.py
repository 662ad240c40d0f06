"""Batch ops for images that were decoded beforehand: crop, resize, normalise, mask on the device.

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

from vision.config.ranges import Finite, Fraction, NonEmpty, Positive, PositiveRange, checked

Batch = Mapping[str, jax.Array]
_KERNELS = {
    "linear": jax.image.ResizeMethod.LINEAR,
    "cubic": jax.image.ResizeMethod.CUBIC,
    "lanczos3": jax.image.ResizeMethod.LANCZOS3,
}


@dataclasses.dataclass(frozen=True)
@checked
class BatchRandomResizedCrop:
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
    scale: PositiveRange = (0.08, 1.0)
    ratio: PositiveRange = (3 / 4, 4 / 3)
    method: Literal["linear", "cubic", "lanczos3"] = "linear"
    antialias: bool = True
    image_key: str = "image"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = batch[self.image_key]
        count, rows, columns, channels = image.shape
        to = (self.size, self.size) if isinstance(self.size, int) else self.size
        boxes = self.draw(key, count, rows, columns)

        def cut(pixels: jax.Array, box: jax.Array) -> jax.Array:
            scale = jnp.array(to) / box[2:]
            return jax.image.scale_and_translate(
                pixels.astype(jnp.float32),
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
@checked
class Crops:
    """Several crops of every image, each mirrored with a probability: ``out`` [B, V, h, w, C].

    Attributes:
      crop: draws and resizes one; its ``image_key`` is what is read.
      views: V.
      out: the feature that is made, such as ``image/global``.
      flip: probability.
    """

    crop: BatchRandomResizedCrop
    views: Positive[int] = 2
    out: str = "image/global"
    flip: Fraction = 0.5

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        name, k_flip, *keys = self.crop.image_key, *jax.random.split(key, self.views + 1)
        views = jnp.stack([self.crop(batch, crop_key)[name] for crop_key in keys], axis=1)
        flip = jax.random.bernoulli(k_flip, self.flip, (*views.shape[:2], 1, 1, 1))
        return {**batch, self.out: jnp.where(flip, views[:, :, :, ::-1], views)}


@dataclasses.dataclass(frozen=True)
@checked
class BatchNormalize:
    """float32 (x - mean) / std per channel, in the value range that ``ValueRange`` gave.

    The defaults are ImageNet's statistics for RGB in 0..1.

    Attributes:
      mean: one number per channel.
      std: one positive number per channel.
      image_key: feature of the images.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive[float], ...] = (0.229, 0.224, 0.225)
    image_key: str = "image"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = batch[self.image_key]
        if not jnp.issubdtype(image.dtype, jnp.floating) or image.shape[-1] != len(self.mean):
            raise ValueError(
                f"BatchNormalize: {self.image_key!r} is {image.dtype}{list(image.shape)}, expected "
                f"floats with {len(self.mean)} channels; put ValueRange first"
            )
        out = (image - jnp.array(self.mean)) / jnp.array(self.std)
        return {**batch, self.image_key: out.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
@checked
class TokenMask:
    """``mask`` bool (B, tokens), True where hidden: the same number in every row.

    Attributes:
      tokens: number of tokens or patches, in raster order.
      share: of hidden ones; their number is tokens - int(tokens (1 - share)), as in MAE.
      out: the feature that is made.
    """

    tokens: Positive[int]
    share: Fraction = 0.75
    out: str = "mask"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        hidden = self.tokens - int(self.tokens * (1 - self.share))
        noise = jax.random.uniform(key, (batch["image"].shape[0], self.tokens))
        rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
        return {**batch, self.out: rank < hidden}


@dataclasses.dataclass(frozen=True)
@checked
class MixedResolution:
    """Every step sees its images in one of several sizes: ``vision.train.step.BatchShapes``.

    The loader gives the largest size, the device shrinks it, antialiased: a network meets things
    at several scales, and small images cost less. ViTs resample their positions to every grid.
    Touvron et al., "Fixing the train-test resolution discrepancy", 2019, and Tan and Le,
    "EfficientNetV2", 2021 (sizes that grow), say why; the draw is ours.

    Attributes:
      sizes: sides, or (height, width) each, in px.
      weights: how often each is seen, relative to the others; None for equally often.
      order: ``random`` draws by the step's key; ``in_turn`` gives every size one stretch of the
        run, in their order, its length by ``weights``.
      method: ``linear``, ``cubic`` or ``lanczos3``.
      image_keys: the features that are resized, [B, H, W, C] uint8 or float, where a batch has
        them; everything else is as it is.
    """

    sizes: NonEmpty[tuple[Positive[int] | tuple[Positive[int], Positive[int]], ...]]
    weights: tuple[Positive[Finite], ...] | None = None
    order: Literal["random", "in_turn"] = "random"
    method: Literal["linear", "cubic", "lanczos3"] = "linear"
    image_keys: tuple[str, ...] = ("image",)

    def __post_init__(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.sizes):
            raise ValueError(f"weights={self.weights}: a number for each of {self.sizes}")

    @property
    def shares(self) -> tuple[float, ...]:
        weights = self.weights or (1.0,) * len(self.sizes)
        return tuple(weight / sum(weights) for weight in weights)

    def choose(self, key: jax.Array, step: jax.Array, total_steps: int) -> jax.Array:
        bounds = jnp.cumsum(jnp.array(self.shares))[:-1]
        if self.order == "random":
            where = jax.random.uniform(key)
        else:
            where = step / total_steps
        return jnp.searchsorted(bounds, where, side="right")

    def reshape(self, batch: Batch, shape: int) -> dict[str, jax.Array]:
        images = [name for name in self.image_keys if name in batch]
        if not images:
            raise ValueError(
                f"MixedResolution: the batch has none of {', '.join(self.image_keys)}; it has "
                f"{', '.join(sorted(batch))}"
            )
        return {**batch, **{name: self._resized(batch[name], shape) for name in images}}

    def _resized(self, image: jax.Array, shape: int) -> jax.Array:
        count, rows, columns, channels = image.shape
        to = _sides(self.sizes[shape])
        if to == (rows, columns):
            return image
        out = jax.image.resize(
            image.astype(jnp.float32), (count, *to, channels), _KERNELS[self.method]
        )
        if image.dtype == jnp.uint8:
            return jnp.clip(jnp.round(out), 0, 255).astype(jnp.uint8)
        return out.astype(image.dtype)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
