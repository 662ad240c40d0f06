"""A classifier that is never trained, so that new models search what old ones have indexed.

Its rows are the K vertices of a regular simplex in d = K - 1 dimensions, unit vectors of cosine
-1 / d. With z (d,) the features of an image,

    logits = W z,      L_cls = CE(softmax over all K rows, y)

The rows of classes that have not come yet stand in the softmax, too: they keep a place for them.
Every model that is trained with the same W, also another tower from other weights, has a class in
the same direction. A stage that follows another adds higher-order compatibility with the features
of the stage before, f_o and f_n of unit length and s_ij = mu f_o(x_i) . f_n(x_j):

    L     = lambda L_cls + (1 - lambda) L_hoc,                    lambda = 0.1, mu = 10
    L_hoc = mean_i ( -s_ii + log sum_j exp(s_ij [y_i != y_j]) )

Biondi et al., Stationary Representations: Optimally Approximating Compatibility and Implications
for Improved Model Replacements, 2024; authors' code: miccunifi/iamcl2r. As there, pairs of one
class, an image and itself among them, count exp(0) in the sum, and 1,024 classes have a place.
There classes take rows from the last one down, here from the first up, which is a permutation.
What is rehearsed is drawn at random there and herded here.

With queries by model i and a gallery by model j <= i, M[i, j] is the accuracy of the nearest
neighbour. Models i > j are compatible where M[i, j] > M[j, j]: the update was worth having without
indexing again. ``simplex.compatibility`` has the share of such pairs (AC) and the mean of M (AA).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp

from papers.d_simplex.simplex import higher_order, simplex
from vision.blocks.similarity import unit
from vision.config.ranges import Fraction, Ge, Positive, checked
from vision.objectives.classify import cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    BatchCoupled,
    Context,
    Variables,
    apply,
    averaged,
    classified,
    output_shapes,
)
from vision.train.tower import forward


@dataclasses.dataclass(frozen=True)
@checked
class Stationary(BatchCoupled):
    """See the module. ``batch["label"]`` int (B,), or -1 for none.

    Attributes:
      model: a tower whose ``logits`` are the features z: its head has ``classes`` - 1 outputs.
      classes: K, of all that may ever come.
      follows: whether a stage comes before, whose network the run starts from and whose features
        it is kept compatible with.
      weight: lambda, of the classification; read where ``follows``.
      scale: mu.
    """

    classes: Annotated[int, Ge(2)] = 1024
    follows: bool = False
    weight: Fraction = 0.1
    scale: Positive[float] = 10.0

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return {"label": LabelKind(self.classes)}

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        variables = super().init(key, batch)
        out = output_shapes(self.model, variables, batch["image"])
        if "logits" not in out or out["logits"].shape[-1] != self.classes - 1:
            width = out["logits"].shape[-1] if "logits" in out else None
            raise ValueError(
                f"Stationary(classes={self.classes}) takes features from a head of "
                f"{self.classes - 1} outputs, and the model's has {width}: set "
                f"model.num_classes={self.classes - 1}"
            )
        return self._with_old(variables)

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """The network of the stage before is what ``init_from`` loaded."""
        return self._with_old(variables)

    def _with_old(self, variables: Variables) -> Variables:
        if not self.follows:
            return variables
        params, state = variables.params["model"], variables.model_state["model"]
        old = jax.tree.map(jnp.copy, {"params": params, "model_state": state})
        return variables.merge(extra_state={"old": old})

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        features = {"new": out["logits"].astype(jnp.float32)}
        if self.follows:
            old = variables.extra_state["old"]
            before = forward(
                self.model, old["params"], old["model_state"], batch["image"], train=False
            )[1]
            features["old"] = before["logits"].astype(jnp.float32)
        return features, Aux(model_state=state)

    def loss_from_embeddings(
        self,
        variables: Variables,
        embeddings: Mapping[str, jax.Array],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        logits = embeddings["new"] @ simplex(self.classes).T
        targets, labelled = to_targets(batch["label"], self.classes)
        valid = labelled & batch["_mask"]
        losses = cross_entropy(logits, targets, "softmax", 0.0)
        if self.follows:
            old, new = (unit(embeddings[name]) for name in ("old", "new"))
            kept = higher_order(old, new, batch["label"], valid, self.scale)
            losses = self.weight * losses + (1 - self.weight) * kept
        return averaged(losses, valid, {}, top1=jnp.argmax(logits, -1) == batch["label"])

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``logits`` and ``log_probabilities`` (B, K), ``embedding`` (B, K - 1), unit vectors."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        features = out["logits"].astype(jnp.float32)
        return classified(features @ simplex(self.classes).T, unit(features))
