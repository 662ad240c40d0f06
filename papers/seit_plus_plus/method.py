"""Training on stored tokens: the pixels are gone, what is kept is a number per patch.

A tokenizer, trained once, replaces every patch by one of K entries of a codebook; a data set is
then a file of ids and labels, of about a hundredth of the size (``Tokenised``). A ViT reads the
entries' vectors, two by two as its patches. Two things make it learn more from them:

Masked token modelling. Of the N places of the ViT a share r, drawn from a normal cut off to
[0.4, 1], is masked. The first 40 % of all are dropped, the others replaced by a learned token; a
light decoder puts tokens in the empty places and tells the four ids of every masked one. With v the
codebook and W the decoder's answer for sub-token i,

    p(id = k) = softmax_k(v_k . W_i + c_k),    L = mean over masked of -log p(id)

ColorAdapt. Pixels cannot be jittered any more, but vectors can: a random half of a batch takes mean
and deviation over places, per channel, from another image:

    x <- (x - mean) / sd * sd' + mean'

Lee et al., SeiT++: Masked Token Modeling Improves Storage-efficient Training, 2024. Headline:
77.8 % on ImageNet-1k with about 1 % of the pixels' storage (unconfirmed). Differences: the ViT
reads the codebook's vectors as they are, without the learned embedding, its LayerNorm and its
dropout, so that what ties the answers is the codebook; r is drawn once per batch; a partner is the
row before. TokenAdapt is not here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papers.seit_plus_plus.codes import read_codebook
from vision.models.unet import folded
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import Tap, Tower, initialise

Tree = Any
MASKING, DECODER = "masking", "decoder"


@dataclasses.dataclass(frozen=True)
class MaskedTokens(Objective):
    """See the module. ``batch``: ``ids`` int (B, h, w) and ``image`` (B, h, w, d), their vectors.

    Attributes:
      model: a ViT with learned positions; filled in from ``config.model``.
      decoder: ``papers.seit_plus_plus.masked_decoder.MaskedDecoder`` with ``outputs`` = patch^2 d.
      codebook: ``.npy`` file of the vectors, float (K, d).
      mean, deviation: of the share that is masked.
      dropped: share of the places that the ViT does not see at all, and the least that is masked.
    """

    decoder: Tower
    codebook: str
    mean: float = 0.45
    deviation: float = 0.25
    dropped: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.dropped < 1 or self.deviation <= 0:
            raise ValueError("dropped lies between 0 and 1, and deviation is positive")

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """float32 (K, d)."""
        return read_codebook(self.codebook)

    @property
    def _patch(self) -> int:
        return self.model.resolved().patch  # pyright: ignore[reportAttributeAccessIssue]

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        keys = jax.random.split(key, 3)
        variables = super().init(keys[0], batch)
        _, rows, columns = batch["ids"].shape
        width = variables.params["model"]["pos_embed"].shape[-1]
        size = rows * columns // self._patch**2
        seen = jnp.zeros((1, size, width)), jnp.zeros((1, size), jnp.int32)
        decoder, decoder_state = initialise(self.decoder, keys[1], *seen)
        masking = {
            "token": 0.02 * jax.random.normal(keys[2], (width,)),
            "bias": jnp.zeros(len(self.vectors)),
        }
        return variables.merge(
            params={DECODER: decoder, MASKING: masking}, model_state={DECODER: decoder_state}
        )

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        truth = folded(batch["ids"][..., None], self._patch)
        truth = truth.reshape(len(truth), -1, self._patch**2)
        order = jnp.argsort(jax.random.uniform(ctx.rng("order"), truth.shape[:2]))
        masked = jnp.argsort(order) < self.count(ctx.rng("share"), order.shape[1])
        logits, state = self.told(variables, batch["image"], order, masked, ctx)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
        return averaged(
            losses.mean(-1),
            masked & batch["_mask"][:, None],
            state,
            masked_accuracy=jnp.mean(jnp.argmax(logits, -1) == truth, -1),
            masked_share=jnp.mean(masked.astype(jnp.float32)),
        )

    def count(self, key: jax.Array, places: int) -> jax.Array:
        """How many of the places are masked: int32, at least those that are dropped."""
        low, high = ((x - self.mean) / self.deviation for x in (self.dropped, 1.0))
        share = self.mean + self.deviation * jax.random.truncated_normal(key, low, high)
        return jnp.clip(jnp.round(share * places).astype(jnp.int32), self.hidden(places), places)

    def hidden(self, places: int) -> int:
        """How many of the places are dropped."""
        return max(1, int(self.dropped * places))

    def told(
        self,
        variables: Variables,
        image: jax.Array,
        order: jax.Array,
        masked: jax.Array,
        ctx: Context,
    ) -> tuple[jax.Array, dict[str, Tree]]:
        """Logits (B, N, patch^2, K) of the ids at every place, and the networks' new state.

        Args:
          image: (B, h, w, d).
          order: int (B, N), places from those that are dropped to those that are never masked.
          masked: bool (B, N), by place.
        """
        places = order[:, self.hidden(order.shape[1]) :]
        params, masking = variables.params["model"], variables.params[MASKING]
        replacement = masking["token"] + params["pos_embed"].reshape(1, order.shape[1], -1)

        def hide(_: str, x: jax.Array) -> jax.Array:
            prefix = x.shape[1] - order.shape[1]
            patches = jnp.where(masked[..., None], replacement.astype(x.dtype), x[:, prefix:])
            kept = jnp.take_along_axis(patches, places[..., None], axis=1)
            return jnp.concatenate([x[:, :prefix], kept], axis=1)

        out, state = apply(self.model, variables, image, ctx, tap=Tap(hide, "stem"))
        decoded, decoder_state = apply(
            self.decoder, variables, out["tokens"], ctx, network=DECODER, places=places
        )
        book = jnp.asarray(self.vectors)
        values = decoded["values"].astype(jnp.float32)
        values = values.reshape(*order.shape, -1, book.shape[1])
        return values @ book.T + masking["bias"], state | decoder_state

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``embedding`` (B, D) of the whole image."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return {"embedding": out["embedding"]}


@dataclasses.dataclass(frozen=True)
class ColorAdapt:
    """Batch op: images take the statistics of the row before them; rows with a masked one stay.

    Attributes:
      probability: of a row to be changed.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability}: it lies in 0..1")

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        image, mask = batch["image"], batch["_mask"]
        chosen = jax.random.bernoulli(key, self.probability, mask.shape)
        chosen &= mask & jnp.roll(mask, 1)
        adapted = color_adapt(image, jnp.roll(image, 1, axis=0))
        return {**batch, "image": jnp.where(chosen[:, None, None, None], adapted, image)}


def color_adapt(x: jax.Array, other: jax.Array) -> jax.Array:
    """``x`` (B, h, w, d) with mean and deviation over places of ``other``, per channel.

    Written as a change of ``x``, so that its own statistics leave every bit as it is.
    """
    (mean, deviation), (mean_there, deviation_there) = (
        (jnp.mean(y, (1, 2), keepdims=True), jnp.std(y, (1, 2), keepdims=True) + 1e-6)
        for y in (x, other)
    )
    return x + (x - mean) * (deviation_there / deviation - 1) + (mean_there - mean)
