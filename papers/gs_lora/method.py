"""GS-LoRA++: classes are forgotten on request, by low-rank updates of few blocks.

Zhao et al., Practical Continual Forgetting for Pre-trained Vision Models, 2025. Headline: accuracy
on forgotten classes near 0 with a small drop on those that remain (unconfirmed).

A network is frozen. For every request, classes F to forget, both dense layers of every block's MLP
get a low-rank update B A; with batches of images of F and of remaining classes,

    L = CE_r + beta relu(BND - CE_f)                              remain, and be wrong on F
      + w_f relu(BND_p - KL_f) + w_r KL_r                         prototypes (the two pluses)
      + alpha sum_g sqrt(sum of squares of all A, B of block g)   few blocks change

    KL = KL(softmax(c_y) || softmax(e(x))),    c_y the mean embedding of class y before the request,

where CE_r, KL_r are means over remaining images, CE_f, KL_f over those of F. The updates are
merged, and the next request begins with new ones. With Acc_f before and after a request,

    Drop = Acc_f before - Acc_f after,      H = 2 Acc_r Drop / (Acc_r + Drop).

Identities: with B = 0 the network is as it was, bit for bit; with alpha = beta = w = 0 the loss is
the cross-entropy of remaining images; what is beyond a bound has no gradient.

Facts of the authors' code: rank 8, alpha 1e-4, beta 0.15, BND 105 (the CosFace loss of faces, whose
logits reach 64), BND_p 50, w_f 0.012 to 0.06, lr 1e-2 to 1e-5 along a cosine, 4 images per class.

Differences: prototypes are means over the images seen so far, by the network as the request found
it; theirs are computed beforehand. No average of weights is kept in the last epochs. No group is
cut to zero: a block counts as changed whose norm is above a hundredth of the largest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.gs_lora.terms import Weights, group_norms, request_loss
from vision.config.ranges import Fraction, NonEmpty, NonNegative, checked
from vision.models.adapted import AdaptedTower
from vision.objectives.classify import class_labels
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    BatchCoupled,
    Context,
    Variables,
    apply,
    classified,
    output_shapes,
)
from vision.train.tower import forward

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class Forget(BatchCoupled):
    """One request. ``batch["label"]`` int (B,); classes of earlier requests are not in the data.

    Only the adapters are trained: ``ParameterRule("model/adapters/")`` and
    ``ParameterRule(".*", learning_rate=0)``; ``InitFrom(..., into="tower")`` loads the network, of
    a run of a request with its updates merged.

    Attributes:
      model: an ``AdaptedTower`` with adapters and a classifier; filled in from ``config.model``.
      forget: classes of this request.
      weights: of the loss.
      sparse_after: share of the run before alpha counts.
    """

    forget: NonEmpty[tuple[NonNegative[int], ...]]
    weights: Weights = Weights()  # noqa: RUF009 - frozen
    sparse_after: Fraction = 0.0

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self._tower)

    @property
    def _tower(self) -> Any:
        return getattr(self.model, "tower", self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Raises ValueError: no adapters, or a class that the model does not have."""
        if not isinstance(self.model, AdaptedTower) or not self.model.adapters:
            raise ValueError("Forget trains adapters: config.model must be an AdaptedTower")
        variables = super().init(key, batch)
        out = output_shapes(self.model, variables, batch["image"])
        if "logits" not in out:
            raise ValueError("Forget needs a classifier: set num_classes of the tower")
        classes, width = out["logits"].shape[-1], out["embedding"].shape[-1]
        if max(self.forget) >= classes:
            raise ValueError(f"forget={self.forget}, but classes are 0..{classes - 1}")
        if len(set(self.forget)) >= classes:
            raise ValueError(f"forget={self.forget} are all {classes} classes: none remains")
        seen = {"sum": jnp.zeros((classes, width)), "count": jnp.zeros(classes)}
        return variables.merge(extra_state={"prototypes": seen})

    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[Tree, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        features = {name: out[name].astype(jnp.float32) for name in ("logits", "embedding")}
        features["before"] = jax.lax.stop_gradient(self._before(variables, batch)["embedding"])
        return features, Aux(model_state=state)

    def _before(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Embedding and logits of the network as the request found it."""
        params = variables.params["model"]["tower"]
        state = variables.model_state.get("model", {})
        plain = {name: tree["tower"] for name, tree in state.items()}
        embedding, out, _ = forward(self._tower, params, plain, batch["image"], train=False)
        found = {"embedding": embedding, "logits": out["logits"]}
        return {name: x.astype(jnp.float32) for name, x in found.items()}

    def loss_from_embeddings(
        self, variables: Variables, embeddings: Any, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        label, before = batch["label"], embeddings["before"]
        valid = batch["_mask"] & (label >= 0)
        seen = variables.extra_state["prototypes"]
        kind = jax.nn.one_hot(label, len(seen["count"])) * valid[:, None]
        now = {"sum": seen["sum"] + kind.T @ before, "count": seen["count"] + kind.sum(0)}
        prototypes = now["sum"] / jnp.maximum(now["count"], 1)[:, None]
        loss, parts = request_loss(
            self.weights,
            embeddings["logits"],
            embeddings["embedding"],
            prototypes,
            now["count"] > 0,
            label,
            jnp.isin(label, jnp.asarray(self.forget)),
            valid,
        )
        norms = group_norms(variables.params["model"]["adapters"])
        counts = ctx.step >= self.sparse_after * ctx.total_steps
        loss = loss + jnp.where(counts, self.weights.group, 0.0) * norms.sum()
        return loss, Aux(parts, means={"prototypes": now})

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Tree]:
        return {**variables.extra_state, "prototypes": aux.means["prototypes"]}

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """What a classifier gives, and ``before/logits`` (B, K), as the request found it."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        before = self._before(variables, batch)["logits"]
        return {**classified(out["logits"], out["embedding"]), "before/logits": before}
