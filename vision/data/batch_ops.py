"""Ops on whole batches, traced into the compiled step.

A batch op is a frozen dataclass called as ``op(batch, key) -> batch`` with a PRNG key; it changes
neither shapes' first axis nor the order of rows. Run a config's list with ``apply``.

The mixing ops pair row i with row i - 1 (the first with the last), as torchvision does: over a
sharded batch only the edges of the shards travel. Where either row of a pair is masked out
(``_mask`` False: padding, or a bad record's placeholder) or has no label, the row stays as it is:
a valid row never takes pixels or label mass from such a row. Masked rows stay masked, and
unlabelled rows unlabelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from vision.config.ranges import Fraction, NonNegative, Positive, checked
from vision.data.ops.base import DeviceOp

Batch = Mapping[str, jax.Array]
NO_LABEL = -1.0
"""Every entry of a soft label that is none: losses give such rows weight 0."""


def apply(ops: Sequence[DeviceOp], batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """``batch`` after ``ops`` in order; op i draws from ``fold_in(key, i)``."""
    out = dict(batch)
    for i, op in enumerate(ops):
        out = op(out, jax.random.fold_in(key, i))
    return out


@dataclasses.dataclass(frozen=True)
class BatchValueRange:
    """uint8 0..255 to float32: 0 becomes ``low``, 255 becomes ``high``, linear between.

    Also of several views of each image, [B, V, H, W, C].

    Attributes:
      low: what 0 becomes.
      high: what 255 becomes, above ``low``.
      image_key: feature of the images.
    """

    low: float = 0.0
    high: float = 1.0
    image_key: str = "image"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low={self.low}, high={self.high}: low must be less than high")

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = _images(batch, self.image_key, "BatchValueRange", views=True)
        if image.dtype != jnp.uint8:
            raise ValueError(
                f"BatchValueRange: {self.image_key!r} is {image.dtype}, expected uint8"
            )
        scaled = image.astype(jnp.float32) / 255 * (self.high - self.low) + self.low
        return {**batch, self.image_key: scaled}


@dataclasses.dataclass(frozen=True)
@checked
class BatchRandomFlip:
    """Mirrors each image left to right with ``probability``.

    Attributes:
      probability: of mirroring an image, 0..1.
      image_key: feature of the images.
    """

    probability: Fraction = 0.5
    image_key: str = "image"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = _images(batch, self.image_key, "BatchRandomFlip")
        flip = jax.random.bernoulli(key, self.probability, (image.shape[0], 1, 1, 1))
        return {**batch, self.image_key: jnp.where(flip, image[:, :, ::-1], image)}


@dataclasses.dataclass(frozen=True)
@checked
class BatchRandomCrop:
    """Pads every image by ``padding`` pixels and cuts a random box out of it, per example.

    Attributes:
      padding: pixels on every side.
      size: (height, width) of the box; None for the size before padding: a random shift by up
        to ``padding`` pixels.
      fill: what the padding holds: zeros, the edge pixel, or the image mirrored at its edge.
      image_key: the image feature, [B, H, W, C] of any dtype.
    """

    padding: NonNegative[int] = 4
    size: tuple[int, int] | None = None
    fill: Literal["zero", "edge", "reflect"] = "zero"
    image_key: str = "image"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        image = _images(batch, self.image_key, "BatchRandomCrop")
        count, rows, columns, channels = image.shape
        height, width = (rows, columns) if self.size is None else self.size
        p = self.padding
        if not (0 < height <= rows + 2 * p and 0 < width <= columns + 2 * p):
            raise ValueError(
                f"BatchRandomCrop: size={self.size} does not fit into {rows}x{columns} images with "
                f"padding={p}"
            )
        mode = {"zero": "constant"}.get(self.fill, self.fill)
        padded = jnp.pad(image, ((0, 0), (p, p), (p, p), (0, 0)), mode=mode)
        limit = jnp.array([rows + 2 * p - height + 1, columns + 2 * p - width + 1])
        corners = jax.random.randint(key, (count, 2), 0, limit)

        def cut(padded_image: jax.Array, corner: jax.Array) -> jax.Array:
            start = (corner[0], corner[1], 0)
            return jax.lax.dynamic_slice(padded_image, start, (height, width, channels))

        return {**batch, self.image_key: jax.vmap(cut)(padded, corners)}


@dataclasses.dataclass(frozen=True)
@checked
class Mixup:
    """Convex combinations of pairs of images and of their labels, one lambda per batch.

    lambda ~ Beta(alpha, alpha); image = lambda image_i + (1 - lambda) image_j, labels likewise.
    Integer labels become soft ones, float32 (B, num_classes), whether or not the batch is mixed.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018.

    Attributes:
      num_classes: K of the soft labels.
      alpha: of the Beta distribution, positive.
      probability: that a batch is mixed at all.
      image_key: float images [B, H, W, C].
      label_key: int (B,) or already soft float (B, K).
    """

    num_classes: Positive[int]
    alpha: Positive[float] = 0.2
    probability: Fraction = 1.0
    image_key: str = "image"
    label_key: str = "label"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        size = _images(batch, self.image_key, type(self).__name__).shape[1:3]
        draw, gate = jax.random.split(key)
        weight = _sometimes(self._weight(draw, size), gate, self.probability)
        return mix(batch, weight, self.num_classes, self.image_key, self.label_key)

    def _weight(self, key: jax.Array, size: tuple[int, ...]) -> jax.Array:
        """A row's own share of every pixel, (H, W)."""
        return jnp.full(size, symmetric_beta(key, self.alpha))


@dataclasses.dataclass(frozen=True)
class CutMix(Mixup):
    """A box of the partner's image pasted in; labels mixed by the area that is really there.

    lambda ~ Beta(alpha, alpha); the box has sides sqrt(1 - lambda) of the image's, a uniform
    centre, and is cut off at the border; one box per batch. Attributes as in ``Mixup``.

    Source: Yun et al., CutMix, 2019.

    Attributes:
      alpha: of the Beta distribution, positive.
    """

    alpha: Positive[float] = 1.0

    def _weight(self, key: jax.Array, size: tuple[int, ...]) -> jax.Array:
        draw, centre_key = jax.random.split(key)
        return cutmix_weight(centre_key, symmetric_beta(draw, self.alpha), size)


@dataclasses.dataclass(frozen=True)
@checked
class MixupCutMix:
    """CutMix with ``switch_probability``, mixup otherwise: the recipe of DeiT, timm, ConvNeXt.

    Attributes:
      num_classes: K of the soft labels.
      mixup_alpha: of mixup's Beta distribution.
      cutmix_alpha: of CutMix's Beta distribution.
      probability: that a batch is mixed at all.
      switch_probability: that a mixed batch gets CutMix.
      image_key: float images [B, H, W, C].
      label_key: int (B,) or already soft float (B, K).
    """

    num_classes: Positive[int]
    mixup_alpha: Positive[float] = 0.8
    cutmix_alpha: Positive[float] = 1.0
    probability: Fraction = 1.0
    switch_probability: Fraction = 0.5
    image_key: str = "image"
    label_key: str = "label"

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        size = _images(batch, self.image_key, "MixupCutMix").shape[1:3]
        switch, draw, centre_key, gate = jax.random.split(key, 4)
        cut = jax.random.bernoulli(switch, self.switch_probability)
        alpha = jnp.where(cut, self.cutmix_alpha, self.mixup_alpha)
        share = symmetric_beta(draw, alpha)
        weight = jnp.where(cut, cutmix_weight(centre_key, share, size), share)
        weight = _sometimes(weight, gate, self.probability)
        return mix(batch, weight, self.num_classes, self.image_key, self.label_key)


def symmetric_beta(key: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """A scalar from Beta(alpha, alpha), in the logarithmic domain, so exact for small alpha.

    The two gammas are one draw of shape (2,), which compiles faster than ``jax.random.beta``.
    """
    logs = jax.random.loggamma(key, alpha, (2,))
    return jax.nn.sigmoid(logs[0] - logs[1])


def cutmix_weight(key: jax.Array, share: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """A row's own share of every pixel: 0 inside the box, 1 outside, float32 (H, W).

    Args:
      key: of the box's centre, uniform over the image.
      own: scalar 0..1, the row's own share of the area, before the border cuts the box off.
      size: (H, W).
    """
    centre = jax.random.randint(key, (2,), 0, jnp.array(size))
    return box_weight(*cutmix_box(centre, share, size), size)


def cutmix_box(
    centre: jax.Array, share: jax.Array, size: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """First and last (row, column) of the box around a centre, the last not in it, unclipped.

    Sides are even, as in the paper's code: half of each is floor(0.5 sqrt(1 - own) side). timm
    keeps odd ones.
    """
    reach = (0.5 * jnp.sqrt(1 - share) * jnp.array(size)).astype(jnp.int32)
    return centre - reach, centre + reach


def box_weight(first: jax.Array, last: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """float32 (H, W): 0 in rows and columns from ``first`` to before ``last``, 1 elsewhere."""
    rows, columns = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None, :]
    inside_rows = (rows >= first[0]) & (rows < last[0])
    inside_columns = (columns >= first[1]) & (columns < last[1])
    return 1.0 - (inside_rows & inside_columns).astype(jnp.float32)


def mix(
    batch: Batch, weight: jax.Array, num_classes: int, image_key: str, label_key: str
) -> dict[str, jax.Array]:
    """Every row with share ``weight`` (H, W) of its own pixels, the rest from the row before.

    The label's own share is the mean of ``weight``, so it is the exact area for a box. A row
    without a label is mixed with no other and has a soft label of ``NO_LABEL``.
    """
    image, label = batch[image_key], batch[label_key]
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"{image_key!r} is {image.dtype}: put ValueRange before the mixing op")
    soft, labelled = soft_labels(label, num_classes, label_key)
    valid = batch.get("_mask", jnp.ones(image.shape[0], bool)) & labelled
    both = valid & jnp.roll(valid, 1)
    pixels = jnp.where(both[:, None, None, None], weight[None, :, :, None], 1.0)
    pixels = pixels.astype(image.dtype)
    share = jnp.where(both, weight.mean(), 1.0)[:, None]
    mixed = pixels * image + (1 - pixels) * jnp.roll(image, 1, axis=0)
    labels = share * soft + (1 - share) * jnp.roll(soft, 1, axis=0)
    return {**batch, image_key: mixed, label_key: jnp.where(labelled[:, None], labels, NO_LABEL)}


def _sometimes(weight: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, probability), weight, 1.0)


def soft_labels(
    label: jax.Array, num_classes: int, label_key: str = "label"
) -> tuple[jax.Array, jax.Array]:
    """Labels as float32 (B, K), and (B,) bool: which rows have one.

    Unlabelled are -1 and numbers of K or more (which readers of sources with class names refuse),
    and rows that hold a negative number, such as ``NO_LABEL``.
    """
    if label.ndim == 1 and jnp.issubdtype(label.dtype, jnp.integer):
        labelled = (label >= 0) & (label < num_classes)
        return jax.nn.one_hot(label, num_classes, dtype=jnp.float32), labelled
    if label.ndim == 2 and label.shape[1] == num_classes:
        soft = label.astype(jnp.float32)
        return soft, (soft >= 0).all(axis=-1)
    raise ValueError(
        f"{label_key!r} is {label.dtype}{list(label.shape)}: expected integers (B,) or soft "
        f"labels (B, {num_classes})"
    )


def _images(batch: Batch, key: str, op: str, views: bool = False) -> jax.Array:
    if key not in batch:
        raise ValueError(f"{op}: no feature {key!r} among {sorted(batch)}; set {op}.image_key")
    image = batch[key]
    if image.ndim != 4 and not (views and image.ndim == 5):
        raise ValueError(f"{op}: {key!r} has shape {image.shape}, expected [B, H, W, C]")
    return image
