"""SMMix: image mixing guided by the attention of the model that is being trained.

CutMix may paste background as well as objects. Here a forward pass without gradient comes first:
by the last attention map, patch to patch, averaged over heads and queries, the least attended
square of side k of an image is replaced by the most attended square of its partner. Both groups of
tokens are classified by a second linear head, and the prediction for the mixture should be the
mixture of the predictions:

    x'  = x with the patches of its least region replaced by the partner's most attended ones
    lam = 1 - k^2 / n^2,  k uniform in int(n / 4) .. int(3 n / 4) of n patches a side
    L   = CE(f(x'), lam y + (1 - lam) y_p)
          + 1/2 (CE(g(mean of remaining tokens), y) + CE(g(mean of pasted tokens), y_p))
          + KL(softmax(lam z + (1 - lam) z_p) || softmax(f(x')))

with z the logits of the first pass, y_p and z_p the partner's, and label smoothing in every CE.
Half of the batches get mixup and plain CE instead. Predictions use f only.

Chen et al., SMMix: Self-Motivated Image Mixing for Vision Transformers, 2023. Headline: ImageNet
73.6 with DeiT-T, 81.1 with DeiT-S. Difference: the partner is half a batch away, where the paper
reverses the batch, so that micro-batches keep pairs together if their number divides half the
batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.smmix.attention import last_attention, patch_attention
from papers.smmix.regions import paste_partners
from papers.smmix.terms import group_losses, init_token_head, mixture_gap
from vision.config.ranges import Fraction, Rate, checked
from vision.data.batch_ops import Mixup
from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    output_shapes,
)
from vision.train.tower import Tap

# Losses (B,), correct predictions (B,), the model's new state, and valid rows (B,).
Rows = tuple[jax.Array, jax.Array, dict[str, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
@checked
class SMMix(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, B even; ``batch["label"]`` int (B,).

    Attributes:
      model: a tower with a head whose ``out`` has ``map``; filled in from ``config.model``.
      attention: regular expression of the sites of its attention weights (B, heads, N, N), patches
        last; averaged if several match. None for those of the last block.
      sides: smallest and largest side of the square, as shares of the side in patches.
      probability: of mixing a batch by pasting; else it gets mixup.
      mixup_alpha: of mixup's Beta distribution.
      label_smoothing: of every cross-entropy.
    """

    attention: str | None = None
    sides: tuple[Rate, Rate] = (0.25, 0.75)
    probability: Fraction = 0.5
    mixup_alpha: float = 0.8
    label_smoothing: Rate = 0.1

    def __post_init__(self) -> None:
        if self.sides[0] > self.sides[1]:
            raise ValueError(f"sides={self.sides}: the least share first")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_head = jax.random.split(key)
        variables = super().init(k_model, batch)
        out = output_shapes(self.model, variables, batch["image"])
        head = init_token_head(k_head, out["map"].shape[-1], out["logits"].shape[-1])
        return variables.merge(params={"token_head": head})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if len(batch["image"]) % 2:
            raise ValueError(f"a batch of {len(batch['image'])} has no pairs: an even batch_size")
        mix_key = ctx.rng("draw")
        chosen = jax.random.bernoulli(ctx.rng("coin"), self.probability)
        losses, correct, state, valid = jax.lax.cond(
            chosen,
            lambda: self._pasted(variables, batch, mix_key, ctx),
            lambda: self._blended(variables, batch, mix_key, ctx),
        )
        pasting = chosen.astype(jnp.float32)
        return averaged(losses, valid, state, top1=correct, pasting=pasting)

    def _pasted(self, variables: Variables, batch: Batch, key: jax.Array, ctx: Context) -> Rows:
        image, half = batch["image"], len(batch["image"]) // 2
        partner = functools.partial(jnp.roll, shift=half, axis=0)
        z, attention = self.attend(variables, image, ctx)
        soft, labelled = to_targets(batch["label"], z.shape[-1])
        valid = labelled & batch["_mask"]
        valid_pair = valid & partner(valid)
        low, high = (int(share * min(attention.shape[1:])) for share in self.sides)
        side = jax.random.randint(key, (), low, high + 1)
        mixed, pasted = paste_partners(image, attention, side, valid_pair, half)
        kept_share = 1 - pasted.mean((1, 2))[:, None]
        out, state = apply(self.model, variables, mixed, ctx)
        logits, head = out["logits"].astype(jnp.float32), variables.params["token_head"]
        entropy = functools.partial(
            cross_entropy, kind="softmax", label_smoothing=self.label_smoothing
        )
        targets = kept_share * soft + (1 - kept_share) * partner(soft)
        groups = group_losses(head, out["map"], pasted, (soft, partner(soft)), entropy)
        gap = mixture_gap(kept_share * z + (1 - kept_share) * partner(z), logits)
        losses = entropy(logits, targets) + 0.5 * groups + gap
        return losses, jnp.argmax(logits, -1) == jnp.argmax(targets, -1), state, valid

    def _blended(self, variables: Variables, batch: Batch, key: jax.Array, ctx: Context) -> Rows:
        classes = variables.params["token_head"]["bias"].shape[0]
        valid = batch["_mask"] & to_targets(batch["label"], classes)[1]
        labelled_batch = {"image": batch["image"], "label": batch["label"], "_mask": valid}
        mixed = Mixup(classes, self.mixup_alpha)(labelled_batch, key)
        out, state = apply(self.model, variables, mixed["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        losses = cross_entropy(logits, mixed["label"], "softmax", self.label_smoothing)
        correct = jnp.argmax(logits, -1) == jnp.argmax(mixed["label"], -1)
        return losses, correct, state, valid

    def attend(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (B, K) and attention (B, h, w), float32, of the model in evaluation mode."""
        pattern = self.attention
        if pattern is None:
            pattern = last_attention(output_shapes(self.model, variables, image))
        params = jax.lax.stop_gradient(variables.params["model"])
        tap = Tap(lambda _, x: x, sites=pattern)
        out, _ = apply(self.model, variables, image, ctx, params=params, train=False, tap=tap)
        return out["logits"].astype(jnp.float32), patch_attention(out, tap)
