"""Losses that compare images with texts, computed block by block.

Scores s (n images, m texts) come with an affinity A >= 0 (how much a pair belongs together) and
``keep`` (whether the pair takes part at all). Every loss is a mean over images of a reduction over
texts, and the same for texts. The reductions are incremental: ``begin`` once, ``add`` for every
block of pairs in any order, ``finish`` at the end. A single block of all pairs is the loss as
papers write it (``contrast``); a ring of devices adds a block at a time
(``vision.blocks.sharded_contrast``). Everything here is float32.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from vision.blocks.scale import Scale
from vision.config.ranges import Finite, NonNegative, Positive, Rate, Rule, checked

Stats = dict[str, jax.Array]
# Masks non-candidates in maxima: finite, so that gradients of masked rows are zeros.
NEVER = -1e30


@flax.struct.dataclass
class Pairs:
    """A block of a batch's pairs: n images by m texts.

    Attributes:
      to_text: (n, m) float32 scores by which image i ranks texts.
      to_image: (n, m) float32 scores by which text j ranks images; differs from
        ``to_text`` for late interaction only.
      affinity: (n, m) float32 >= 0, 0 for negatives and where ``keep`` is False. Divided by its
        sum over texts it is the target distribution of an image, and over images that of a text.
      keep: (n, m) bool, False for pairs that are neither positive nor negative.
    """

    to_text: jax.Array
    to_image: jax.Array
    affinity: jax.Array
    keep: jax.Array


class Loss(Protocol):
    """A frozen dataclass; the reductions run over ``axis`` of a block: 1 for images, 0 for texts.

    ``weights`` are those of the mean over images and of the mean over texts in the loss.
    """

    @property
    def weights(self) -> tuple[float, float]: ...

    def parameters(self) -> dict[str, float]:
        """Initial values of the learned parameters of the loss."""
        ...

    def coefficients(self, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        """Scale and bias, float32 scalars: logits are scale * s + bias."""
        ...

    def begin(self, own: jax.Array) -> Stats:
        """Statistics (n,) before the first block; ``own`` (n,) logits of the rows' own pairs."""
        ...

    def add(
        self, stats: Stats, logits: jax.Array, affinity: jax.Array, keep: jax.Array, axis: int
    ) -> Stats:
        """Statistics after one more block of pairs (n, m)."""
        ...

    def finish(self, stats: Stats) -> tuple[jax.Array, jax.Array]:
        """Losses (n,), and (n,) bool: rows with a positive pair."""
        ...


_NOT_BOTH_0 = Rule("not both 0", any)


@dataclasses.dataclass(frozen=True)
@checked
class Softmax:
    """Cross-entropy of the softmax over the batch with the target distribution.

    For image i, with P_ij = A_ij / sum_j A_ij and n_i candidates:
    L_i = logsumexp_j(s_ij) - sum_j ((1 - e) P_ij + e / n_i) s_ij.
    Identity targets give CLIP (Radford et al. 2021) and ALIGN (Jia et al. 2021); same-label
    targets UniCL (Yang et al. 2022). Rows without a positive do not count. If all pairs are
    positive the loss is finite, at least log n; a batch of one row has loss 0.

    Attributes:
      scale: inverse temperature; FILIP and CLIP: the default; ALIGN: ``Scale(1.0, 100.0,
        form="temperature")`` (the bound is ours).
      label_smoothing: e in [0, 1); ALIGN: 0.1.
      weights: of the image-to-text and the text-to-image loss; ALIGN: (1, 1).
    """

    scale: Scale = Scale()  # noqa: RUF009 - frozen
    label_smoothing: Rate = 0.0
    weights: Annotated[tuple[NonNegative[Finite], NonNegative[Finite]], _NOT_BOTH_0] = (0.5, 0.5)

    def parameters(self) -> dict[str, float]:
        return self.scale.parameters()

    def coefficients(self, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        return self.scale.value(params), jnp.float32(0)

    def begin(self, own: jax.Array) -> Stats:
        zero = jnp.zeros_like(own)
        stats = {"lse": jnp.full_like(own, NEVER), "aligned": zero, "mass": zero}
        return {**stats, "plain": zero, "count": zero} if self.label_smoothing else stats

    def add(
        self, stats: Stats, logits: jax.Array, affinity: jax.Array, keep: jax.Array, axis: int
    ) -> Stats:
        block = jax.nn.logsumexp(jnp.where(keep, logits, NEVER), axis)
        new = {
            "lse": jnp.logaddexp(stats["lse"], block),
            "aligned": stats["aligned"] + jnp.sum(affinity * logits, axis),
            "mass": stats["mass"] + jnp.sum(affinity, axis),
        }
        if self.label_smoothing:
            new["plain"] = stats["plain"] + jnp.sum(jnp.where(keep, logits, 0.0), axis)
            new["count"] = stats["count"] + jnp.sum(keep, axis)
        return new

    def finish(self, stats: Stats) -> tuple[jax.Array, jax.Array]:
        counts = stats["mass"] > 0
        target = stats["aligned"] / jnp.where(counts, stats["mass"], 1.0)
        if self.label_smoothing:
            uniform = stats["plain"] / jnp.maximum(stats["count"], 1.0)
            target += self.label_smoothing * (uniform - target)
        return jnp.where(counts, stats["lse"] - target, 0.0), counts


@dataclasses.dataclass(frozen=True)
@checked
class Sigmoid:
    """Binary classification of every pair as positive or not (SigLIP, Zhai et al. 2023).

    L_i = - sum_j (A_ij log sigmoid(s_ij) + (1 - A_ij) log sigmoid(-s_ij)), A clipped at 1. A sum
    over texts, a mean over images, as in the paper, so the loss grows with the batch.

    Attributes:
      scale: inverse temperature; the paper starts at 10 and does not bound it.
      bias: initial value of the learned bias; the paper starts at -10, since almost all pairs are
        negative. None: no bias.
    """

    scale: Scale = Scale(10.0, None)  # noqa: RUF009 - frozen
    bias: Finite | None = -10.0

    @property
    def weights(self) -> tuple[float, float]:
        return 0.5, 0.5

    def parameters(self) -> dict[str, float]:
        bias = {} if self.bias is None else {"bias": self.bias}
        return {**self.scale.parameters(), **bias}

    def coefficients(self, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        bias = 0.0 if self.bias is None else params["bias"]
        return self.scale.value(params), jnp.asarray(bias, jnp.float32)

    def begin(self, own: jax.Array) -> Stats:
        return {"sum": jnp.zeros_like(own), "mass": jnp.zeros_like(own)}

    def add(
        self, stats: Stats, logits: jax.Array, affinity: jax.Array, keep: jax.Array, axis: int
    ) -> Stats:
        target = jnp.minimum(affinity, 1.0)
        # log sigmoid(s) = s + log sigmoid(-s)
        losses = -(jax.nn.log_sigmoid(-logits) + target * logits)
        return {
            "sum": stats["sum"] + jnp.sum(jnp.where(keep, losses, 0.0), axis),
            "mass": stats["mass"] + jnp.sum(affinity, axis),
        }

    def finish(self, stats: Stats) -> tuple[jax.Array, jax.Array]:
        counts = stats["mass"] > 0
        return jnp.where(counts, stats["sum"], 0.0), counts


@dataclasses.dataclass(frozen=True)
@checked
class Ranking:
    """Hinge loss: the matching pair beats every negative by a margin (visual-semantic embedding).

    For image i: mean, or maximum, over negatives j of max(0, margin - s_ii + s_ij). Applied to
    similarities without temperature. Rows without negatives have loss 0.

    Attributes:
      margin: in units of similarity.
      negatives: ``text``: wrong texts for an image; ``image``: wrong images for a text; ``both``.
      reduce: ``mean`` over the negatives of the batch, or only the ``hardest`` (VSE++, Faghri et
        al. 2018).
    """

    margin: Positive[Finite] = 0.2
    negatives: Literal["text", "image", "both"] = "both"
    reduce: Literal["mean", "hardest"] = "mean"

    @property
    def weights(self) -> tuple[float, float]:
        return float(self.negatives != "image"), float(self.negatives != "text")

    def parameters(self) -> dict[str, float]:
        return {}

    def coefficients(self, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        return jnp.float32(1), jnp.float32(0)

    def begin(self, own: jax.Array) -> Stats:
        zero = jnp.zeros_like(own)
        return {"own": own, "sum": zero, "count": zero, "worst": zero, "mass": zero}

    def add(
        self, stats: Stats, logits: jax.Array, affinity: jax.Array, keep: jax.Array, axis: int
    ) -> Stats:
        positive = jnp.expand_dims(stats["own"], axis)
        negative = keep & (affinity == 0)
        hinge = jnp.where(negative, jnp.maximum(0.0, self.margin - positive + logits), 0.0)
        return {
            "own": stats["own"],
            "sum": stats["sum"] + jnp.sum(hinge, axis),
            "count": stats["count"] + jnp.sum(negative, axis),
            "worst": jnp.maximum(stats["worst"], jnp.max(hinge, axis)),
            "mass": stats["mass"] + jnp.sum(affinity, axis),
        }

    def finish(self, stats: Stats) -> tuple[jax.Array, jax.Array]:
        mean = stats["sum"] / jnp.maximum(stats["count"], 1.0)
        losses = mean if self.reduce == "mean" else stats["worst"]
        counts = stats["mass"] > 0
        return jnp.where(counts, losses, 0.0), counts


def begin(loss: Loss, own: jax.Array) -> Stats:
    """Initial statistics of ``loss`` and of the accuracies."""
    lowest = jnp.full_like(own, NEVER)
    return {**loss.begin(own), "best_positive": lowest, "best_negative": lowest}


def add(
    loss: Loss, stats: Stats, logits: jax.Array, affinity: jax.Array, keep: jax.Array, axis: int
) -> Stats:
    fixed = jax.lax.stop_gradient(logits)
    positive = jnp.max(jnp.where(affinity > 0, fixed, NEVER), axis)
    negative = jnp.max(jnp.where(keep & (affinity == 0), fixed, NEVER), axis)
    return {
        **loss.add(stats, logits, affinity, keep, axis),
        "best_positive": jnp.maximum(stats["best_positive"], positive),
        "best_negative": jnp.maximum(stats["best_negative"], negative),
    }


def finish(loss: Loss, stats: Stats) -> dict[str, jax.Array]:
    """Sums over rows with a positive: ``loss``, ``hits`` (it beats all negatives), ``rows``."""
    losses, counts = loss.finish(stats)
    hits = counts & (stats["best_positive"] > stats["best_negative"])
    return {
        "loss": jnp.sum(losses),
        "hits": jnp.sum(hits, dtype=jnp.float32),
        "rows": jnp.sum(counts, dtype=jnp.float32),
    }


@flax.struct.dataclass
class ContrastResult:
    """Loss and metrics of a contrast, float32 scalars; 0 if no pair counts.

    Attributes:
      loss: weighted sum of the means over images and over texts.
      to_text, to_image: share of images (texts) with a positive above all negatives.
      own: mean similarity of matching pairs, before scale and bias.
      rows: number of images that count.
    """

    loss: jax.Array
    to_text: jax.Array
    to_image: jax.Array
    own: jax.Array
    rows: jax.Array


def conclude(
    loss: Loss, images: dict[str, jax.Array], texts: dict[str, jax.Array], own: jax.Array
) -> ContrastResult:
    """Means from sums over images, over texts, and over similarities of matching pairs."""
    first, second = jnp.maximum(images["rows"], 1.0), jnp.maximum(texts["rows"], 1.0)
    return ContrastResult(
        loss=loss.weights[0] * images["loss"] / first + loss.weights[1] * texts["loss"] / second,
        to_text=images["hits"] / first,
        to_image=texts["hits"] / second,
        own=own / first,
        rows=images["rows"],
    )


def visit(
    loss: Loss, coefficients: tuple[jax.Array, jax.Array], images: Stats, texts: Stats, pairs: Pairs
) -> tuple[Stats, Stats]:
    """Statistics of n images and of m texts after a block of their pairs."""
    scale, bias = coefficients
    images = add(loss, images, scale * pairs.to_text + bias, pairs.affinity, pairs.keep, 1)
    texts = add(loss, texts, scale * pairs.to_image + bias, pairs.affinity, pairs.keep, 0)
    return images, texts


def contrast(loss: Loss, params: dict[str, Any], pairs: Pairs) -> ContrastResult:
    """The loss of a whole batch from its matrices of scores; image i and text i are a pair.

    Args:
      loss: ``Softmax``, ``Sigmoid`` or ``Ranking``.
      params: its learned parameters, named as in ``loss.parameters()``.
      pairs: all pairs, (B, B).
    """
    coefficients = loss.coefficients(params)
    scale, bias = coefficients
    own_scores = jnp.diagonal(pairs.to_text), jnp.diagonal(pairs.to_image)
    images, texts = (begin(loss, scale * score + bias) for score in own_scores)
    images, texts = visit(loss, coefficients, images, texts, pairs)
    counted = jnp.where(jnp.sum(pairs.affinity, 1) > 0, own_scores[0], 0.0)
    return conclude(loss, finish(loss, images), finish(loss, texts), jnp.sum(counted))


def affinities(images: jax.Array, texts: jax.Array) -> jax.Array:
    """Affinity (n, m) float32 from one key per row.

    Args:
      images, texts: integers (n,) and (m,): 1 where equal, else 0. Or floats (n, K) and (m, K),
        soft labels: their inner product, clipped at 0.
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        return (images[:, None] == texts[None, :]).astype(jnp.float32)
    product = jnp.einsum("ik,jk->ij", images, texts, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(product.astype(jnp.float32), 0.0)
