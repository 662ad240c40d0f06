"""MetaFormer: whatever else is known of an image joins its patches as tokens.

Two stages of inverted residual blocks are followed by two of attention. There every field that is
known of the image (place and time, attributes, a sentence's vector) is encoded to a token beside
the class token and the patches:

    x = [class; enc_1(field_1); ...; patches],  enc(m) = y + h(h(y)),  y = h(m),  h = LN(ReLU(W .))

with encoders of their own for both stages, whose class tokens are mixed to the embedding. In
training the metadata of a share of each batch are zeros, and so are those that are missing, there
or in testing. The share is ``mask`` or, with ``decay``, falls from it by t / T: the network learns
first from images alone, and can do without metadata later.

Diao et al., MetaFormer: A Unified Meta Framework for Fine-Grained Recognition, 2022. Headline:
iNaturalist 2018 84.3 to 88.7 % with place and time, 2017 80.4 to 83.4 (MetaFormer-2, 21k). Towers
have as many parameters as the authors' code, without metadata the published 28, 45 and 81 million;
the paper's 4.6, 8.5 and 16.9 GFLOPs at 224 pixels are products without those of attention, with
which they are 4.7, 8.8 and 17.5. Differences from the authors' code: pairs with a token that has no
place have a bias of their own, where theirs share the row of the farthest offset and leave the one
meant for them unused; a latitude or longitude of exactly 0 is a place, theirs is missing; a share
below 0 masks none. The paper's other sources, attributes of birds and sentences' vectors, are
fields of any length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vision.config.ranges import Fraction, Rate, checked
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
    classified,
)


@dataclasses.dataclass(frozen=True)
@checked
class ClassifyWithMeta(Objective):
    """Cross-entropy of images with metadata, a share of which is masked.

    ``batch["image"]`` and ``batch["label"]`` as ``Classify`` has them; ``batch["meta"]`` float
    (B, M), NaN for what is not known. Predictions of a batch without ``meta`` are of images alone.

    Attributes:
      model: a tower that is called with images and ``meta``.
      mask: share of a batch whose metadata are zeros in training.
      decay: the share falls with the steps, by as much as is done of all.
      label_smoothing: of the cross-entropy.
    """

    mask: Fraction = 1.0
    decay: bool = True
    label_smoothing: Rate = 0.0

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def masked(self, meta: jax.Array, ctx: Context) -> jax.Array:
        """``meta`` (B, M) with zeros in the rows of as many images as the share says."""
        share = jnp.float32(self.mask)
        if self.decay:
            share = jnp.maximum(share - ctx.step / ctx.total_steps, 0)
        order = jax.random.permutation(ctx.rng("meta"), len(meta))
        return jnp.where((order < jnp.floor(share * len(meta)))[:, None], 0, meta)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if "meta" not in batch:
            raise ValueError("batches to learn from have 'meta'; EncodeMeta makes it of features")
        meta = self.masked(batch["meta"], ctx)
        out, state = apply(self.model, variables, batch["image"], ctx, meta=meta)
        logits = out["logits"].astype(jnp.float32)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        return averaged(losses, labelled & batch["_mask"], state, top1=correct)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``."""
        out, _ = apply(self.model, variables, batch["image"], ctx, meta=batch.get("meta"))
        return classified(out["logits"], out["embedding"])
