"""Similarities of images and texts, from embeddings, tokens or parts.

A similarity is a frozen dataclass, called on dicts of arrays with one row per image and one row
per text. It gives two float32 matrices (n images, m texts): the first ranks texts for an image,
the second images for a text; they differ only for late interaction. Names in the dicts are those of
a dual encoder's ``out`` without ``image/`` and ``text/``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, Protocol

import jax
import jax.numpy as jnp

from vision.blocks.contrast import NEVER
from vision.config.errors import UserError
from vision.config.ranges import Gt, Le, Positive, checked

Features = dict[str, jax.Array]
Tree = Any


class ContrastError(UserError):
    """Images and texts cannot be compared: sizes do not match, or an input is missing."""


class Similarity(Protocol):
    """Protocol of a similarity, see the module.

    Attributes:
      reads: the entries of ``out`` that it needs.
      chunk: number of texts that are compared with all images at a time; None for all.
      captions: ``each``: with several captions per image, a text is one caption, and losses are
        averaged over captions. ``all``: a text is all captions of an image.
    """

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def chunk(self) -> int | None: ...

    @property
    def captions(self) -> Literal["each", "all"]: ...

    def prepare(self, images: Features, texts: Features) -> tuple[Features, Features]:
        """Computed once on the rows of a device, before any comparison."""
        ...

    def __call__(self, images: Features, texts: Features) -> tuple[jax.Array, jax.Array]: ...


class _OfEmbeddings:
    """Common part of similarities of embeddings."""

    @property
    def reads(self) -> tuple[str, ...]:
        return "image/embedding", "text/embedding"

    def prepare(self, images: Features, texts: Features) -> tuple[Features, Features]:
        return images, texts


@dataclasses.dataclass(frozen=True)
@checked
class Dot(_OfEmbeddings):
    """Inner product of embeddings (n, D) and (m, D): cosine, as dual encoders give unit vectors.

    Attributes:
      chunk: texts per block, to bound memory on a device; None for all that it has.
    """

    chunk: Positive[int] | None = None

    @property
    def captions(self) -> Literal["each"]:
        return "each"

    def __call__(self, images: Features, texts: Features) -> tuple[jax.Array, jax.Array]:
        image, text = images["embedding"], texts["embedding"]
        check_widths(image, text)
        scores = inner("id,jd->ij", image, text)
        return scores, scores


@dataclasses.dataclass(frozen=True)
@checked
class BestPart(_OfEmbeddings):
    """Similarity of the best pair of parts: max over regions r and captions c of x_ir . t_jc.

    Images have one embedding (n, D) or one per region (n, R, D); texts one (m, D) or one per
    caption or sentence (m, C, D), of which ``texts["present"]`` (m, C) says which exist.

    Attributes:
      chunk: texts per block, to bound memory on a device; None for all that it has.
    """

    chunk: Positive[int] | None = 64

    @property
    def captions(self) -> Literal["all"]:
        return "all"

    def __call__(self, images: Features, texts: Features) -> tuple[jax.Array, jax.Array]:
        image, text = images["embedding"], texts["embedding"]
        check_widths(image, text)
        image = image if image.ndim == 3 else image[:, None]
        text = text if text.ndim == 3 else text[:, None]
        scores = inner("ird,jcd->ijrc", image, text)
        present = texts.get("present")
        if present is not None:
            scores = jnp.where(present[None, :, None, :], scores, NEVER)
        best = jnp.max(scores, (2, 3))
        # A text without captions has the lowest cosine with everything.
        best = jnp.maximum(best, -1.0)
        return best, best


@dataclasses.dataclass(frozen=True)
@checked
class LateInteraction:
    """Mean over patches of the best word's similarity, and vice versa (FILIP, Yao et al. 2022).

    With unit tokens f_ip (n, P, D) and g_jt (m, T, D), padding left out:
    to_text_ij = mean_p max_t f_ip . g_jt and to_image_ij = mean_t max_p f_ip . g_jt.
    Tokens are normalised here; ``mask`` (n, P) or (m, T), where given, is true for real tokens.
    An item without any token has similarity 0 with everything.

    Attributes:
      chunk: texts per block: n x chunk x P x T products exist at once.
      keep: share of an item's tokens that are kept: those with the highest similarity to any
        token of the other modality on the same device (the paper keeps 0.25). Below 1 the loss
        depends on how rows are split over devices.
      compute: number format of the products; they are summed in float32.
    """

    chunk: Positive[int] | None = 16
    keep: Annotated[float, Gt(0), Le(1)] = 1.0
    compute: Literal["float32", "bfloat16"] = "float32"

    @property
    def reads(self) -> tuple[str, ...]:
        return "image/tokens", "text/tokens", "text/mask"

    @property
    def captions(self) -> Literal["each"]:
        return "each"

    def prepare(self, images: Features, texts: Features) -> tuple[Features, Features]:
        check_widths(images["tokens"], texts["tokens"])
        images, texts = ({**side, "tokens": unit(side["tokens"])} for side in (images, texts))
        if self.keep == 1:
            return images, texts
        image_best, text_best = self._best(images, texts)
        return select(images, image_best, self.keep), select(texts, text_best, self.keep)

    def __call__(self, images: Features, texts: Features) -> tuple[jax.Array, jax.Array]:
        scores = self._products(images["tokens"], texts["tokens"])
        patch, word = token_mask(images)[:, None, :], token_mask(texts)[None, :, :]
        best_word = jnp.max(jnp.where(word[:, :, None, :], scores, NEVER), 3)
        best_patch = jnp.max(jnp.where(patch[:, :, :, None], scores, NEVER), 2)
        both_present = jnp.any(patch, -1) & jnp.any(word, -1)
        to_text = jnp.where(both_present, masked_mean(best_word, patch), 0.0)
        to_image = jnp.where(both_present, masked_mean(best_patch, word), 0.0)
        return to_text, to_image

    def _products(self, image: jax.Array, text: jax.Array) -> jax.Array:
        """Cosines (n, m, P, T) float32 of all tokens."""
        dtype = jnp.dtype(self.compute)
        return inner("ipd,jtd->ijpt", image.astype(dtype), text.astype(dtype))

    def _best(self, images: Features, texts: Features) -> tuple[jax.Array, jax.Array]:
        """Highest cosine of every token, (n, P) and (m, T), with any of the other modality."""
        images, texts = jax.lax.stop_gradient((images, texts))
        texts = {**texts, "mask": token_mask(texts)}
        patch = token_mask(images)[:, None, :, None]

        def step(text_chunk: Features) -> tuple[jax.Array, jax.Array]:
            scores = self._products(images["tokens"], text_chunk["tokens"])
            word = text_chunk["mask"][None, :, None, :]
            best = jnp.max(jnp.where(word, scores, NEVER), (1, 3))
            return best, jnp.max(jnp.where(patch, scores, NEVER), (0, 2))

        image_best, text_best = jax.lax.map(step, chunks(texts, self.chunk))
        return jnp.max(image_best, 0), unchunk(text_best, len(texts["mask"]))


def inner(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Products summed in float32, and of float32 numbers in full precision on every device."""
    if a.dtype != jnp.bfloat16 or b.dtype != jnp.bfloat16:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=jnp.float32)


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis, float32; zeros stay zeros."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def token_mask(side: Features) -> jax.Array:
    """(n, N) bool: the real tokens; all of them without a ``mask``."""
    mask = side.get("mask")
    return jnp.ones(side["tokens"].shape[:2], bool) if mask is None else mask.astype(bool)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the last axis where ``mask``; 0 where it is all False."""
    return jnp.sum(jnp.where(mask, x, 0.0), -1) / jnp.maximum(jnp.sum(mask, -1), 1)


def select(side: Features, best: jax.Array, share: float) -> Features:
    """The share ``share`` of every row's tokens with the highest ``best`` (n, N)."""
    mask = token_mask(side)
    count = math.ceil(share * best.shape[1])
    _, index = jax.lax.top_k(jnp.where(mask, best, NEVER), count)
    return {
        "tokens": jnp.take_along_axis(side["tokens"], index[:, :, None], 1),
        "mask": jnp.take_along_axis(mask, index, 1),
    }


def chunks(tree: Tree, size: int | None) -> Tree:
    """Arrays (n, ...) as (ceil(n / size), size, ...); missing rows are zeros or False."""

    def cut(x: jax.Array) -> jax.Array:
        rows = min(size or len(x), len(x))
        x = jnp.pad(x, [(0, -len(x) % rows)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, rows, *x.shape[1:])

    return jax.tree.map(cut, tree)


def unchunk(tree: Tree, rows: int) -> Tree:
    """Undoes ``chunks`` of arrays with ``rows`` rows."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], tree)


def check_widths(image: jax.Array, text: jax.Array) -> None:
    if image.shape[-1] != text.shape[-1]:
        raise ContrastError(
            f"image vectors have {image.shape[-1]} numbers and text vectors {text.shape[-1]}: "
            "give both towers of config.model the same output width"
        )
