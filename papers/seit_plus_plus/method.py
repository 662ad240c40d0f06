"""SeiT++: training on stored tokens instead of pixels, with masked token modelling.

A tokenizer, trained once, replaces every patch by one of K entries of a codebook; a data set is
then a file of ids and labels, about a hundredth of the size (``Tokenised``). A ViT reads the
entries' vectors, with patches of two by two. Two techniques improve its training:

Masked token modelling. Of the N positions of the ViT a share r, drawn from a normal distribution
truncated to [0.4, 1], is masked. The first 40 % of all are dropped, the other masked ones replaced
by a learned token; a light decoder inserts mask tokens at all masked positions, those that the ViT
was given too, and predicts the four ids of every one. With v the codebook and W_i the decoder's
output for sub-token i,

    p(id = k) = softmax_k(v_k . LN(gelu(W_i)) + c_k),    L = mean over masked of -log p(id)

ColorAdapt (``papers.seit_plus_plus.color_adapt``). Colour jitter is not possible without pixels;
instead a random half of a batch takes mean and deviation over positions, per channel, from another
image:

    x <- (x - mean) / sd * sd' + mean'

Lee et al., SeiT++: Masked Token Modeling Improves Storage-efficient Training, 2024. Headline:
77.8 % on ImageNet-1k with about 1 % of the pixels' storage (unconfirmed). Differences: the ViT
reads the codebook's vectors directly, without the learned embedding, its LayerNorm and its dropout,
so that the output layer is tied to the codebook; the decoder's mask token is learned, theirs is the
decoded class token; no label smoothing; the partner is the previous row. As in their code r is
drawn once per batch, and numbers of positions are rounded up. Not here: TokenAdapt, which augments
tokens through two networks that are trained with the tokenizer.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papers.seit_plus_plus.codes import read_codebook
from papers.seit_plus_plus.masking import dropped_count, id_scores, masked_count, masking_tap
from vision.config.ranges import Gt, Lt, Positive, checked
from vision.models.unet import folded
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import Tower, initialise

Tree = Any
MASKING, DECODER = "masking", "decoder"


@dataclasses.dataclass(frozen=True)
@checked
class MaskedTokens(Objective):
    """See the module. ``batch``: ``ids`` int (B, h, w) and ``image`` (B, h, w, d), their vectors.

    Attributes:
      model: a ViT with learned positions; filled in from ``config.model``.
      decoder: ``papers.seit_plus_plus.masked_decoder.MaskedDecoder`` with ``outputs`` = patch^2 d.
      codebook: ``.npy`` file of the vectors, float (K, d).
      mean, deviation: of the masked share.
      dropped: share of the positions that the ViT does not get at all, and minimum of the masked.
    """

    decoder: Tower
    codebook: str
    mean: float = 0.45
    deviation: Positive[float] = 0.25
    dropped: Annotated[float, Gt(0), Lt(1)] = 0.4

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
        positions = rows * columns // self._patch**2
        places = jnp.zeros((1, positions), jnp.int32)
        decoder_inputs = jnp.zeros((1, positions, width)), places, places > 0
        decoder, decoder_state = initialise(self.decoder, keys[1], *decoder_inputs)
        masking = {
            "token": 0.02 * jax.random.normal(keys[2], (width,)),
            "bias": jnp.zeros(len(self.vectors)),
            "norm_scale": jnp.ones(self.vectors.shape[1]),
            "norm_bias": jnp.zeros(self.vectors.shape[1]),
        }
        return variables.merge(
            params={DECODER: decoder, MASKING: masking}, model_state={DECODER: decoder_state}
        )

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        ids = folded(batch["ids"][..., None], self._patch)
        ids = ids.reshape(len(ids), -1, self._patch**2)
        order = jnp.argsort(jax.random.uniform(ctx.rng("order"), ids.shape[:2]))
        drawn = (order.shape[1], self.dropped, self.mean, self.deviation)
        masked = jnp.argsort(order) < masked_count(ctx.rng("share"), *drawn)
        logits, state = self.id_logits(variables, batch["image"], order, masked, ctx)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
        return averaged(
            losses.mean(-1),
            masked & batch["_mask"][:, None],
            state,
            masked_accuracy=jnp.mean(jnp.argmax(logits, -1) == ids, -1),
            masked_share=jnp.mean(masked.astype(jnp.float32)),
        )

    def id_logits(
        self,
        variables: Variables,
        image: jax.Array,
        order: jax.Array,
        masked: jax.Array,
        ctx: Context,
    ) -> tuple[jax.Array, dict[str, Tree]]:
        """Logits (B, N, patch^2, K) of the ids at every position, and the networks' new state.

        Args:
          image: (B, h, w, d).
          order: int (B, N), positions: dropped ones first, those that are never masked last.
          masked: bool (B, N), by position.
        """
        visible = order[:, dropped_count(order.shape[1], self.dropped) :]
        pos_embed, masking = variables.params["model"]["pos_embed"], variables.params[MASKING]
        replacement = masking["token"] + pos_embed.reshape(1, order.shape[1], -1)
        tap = masking_tap(replacement, masked, visible)
        out, state = apply(self.model, variables, image, ctx, tap=tap)
        decoded, decoder_state = apply(
            *(self.decoder, variables, out["tokens"], ctx),
            network=DECODER,
            places=visible,
            masked=masked,
        )
        values = decoded["values"].astype(jnp.float32)
        values = values.reshape(*order.shape, -1, self.vectors.shape[1])
        return id_scores(values, jnp.asarray(self.vectors), masking), state | decoder_state

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``embedding`` (B, D) of the unmasked image."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return {"embedding": out["embedding"]}
