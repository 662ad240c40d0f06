"""RBI: an image's features attend to those of the other images of its batch.

Fine classes differ by what shows only beside a similar image. On features F (B, D) of any tower,
in training and in evaluation,

    R_ij    = PSNR of the images i and j, scaled to [0, 1] within the batch, 1 for i = j
    refined = F + proj(softmax(q k^T / sqrt(d) + w R) v),    q, k, v linear in LayerNorm(F)
    logits  = head(refined)

An answer then depends on which images are in the batch. ``alone=True`` predicts every image as if
it were a batch of its own; a ``direct`` weight above zero trains a second linear head on F beside
it, whose answer is ``logits/direct``. A test batch that is sorted by class tells the answer:
evaluate in a shuffled order, and say so.

Le et al., Enhancing Fine-grained Image Classification through Attentive Batch Training, 2024.
Headline: +2.78 points on CUB-200-2011, +3.83 on Stanford Dogs on average. The authors' code was not
found. Where R enters, the number of heads and the place of the norm are not published: here R is
added to the logits with one learned weight per head, and the norm stands before q, k and v, so that
``proj`` = 0 is the plain linear head exactly. No FLOPs of the published networks are known to us.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from papers.rbi.relation import RelationHead, psnr_similarity
from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.objectives.classify import class_labels, cross_entropy, to_targets
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


@dataclasses.dataclass(frozen=True)
@checked
class RelationshipBatch(BatchCoupled):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    Rows that ``_mask`` leaves out are attended to by nobody. The tower keeps its linear head, which
    is the second one: without ``direct`` it gets no gradient.

    Attributes:
      model: a tower with a head; any.
      heads: of the attention between images.
      direct: weight of the cross-entropy of the tower's own head.
      alone: predictions see each image by itself.
      side: to which images are reduced before they are compared, in pixels.
      label_smoothing: of every cross-entropy.
    """

    heads: Positive[int] = 4
    direct: NonNegative[float] = 0.0
    alone: bool = False
    side: Positive[int] = 32
    label_smoothing: Rate = 0.0

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_head = jax.random.split(key)
        variables = super().init(k_model, batch)
        out = output_shapes(self.model, variables, batch["image"])
        if "logits" not in out:
            raise ValueError("RelationshipBatch: the model has no head; set its num_classes")
        head = RelationHead(out["logits"].shape[-1], self.heads)
        features = jnp.zeros((1, out["embedding"].shape[-1]))
        one = jnp.ones((1, 1))
        params = head.init({"params": k_head}, features, one, one > 0)["params"]
        return variables.merge(params={"relation": params})

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        named = {name: out[name].astype(jnp.float32) for name in ("embedding", "logits")}
        return named, Aux(model_state=state)

    def related(
        self, variables: Variables, features: jax.Array, batch: Batch, alone: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (B, K) and refined features (B, D) of features (B, D), float32."""
        valid, own = batch["_mask"], jnp.eye(len(features), dtype=bool)
        similarity = psnr_similarity(batch["image"], valid, self.side)
        visible = own if alone else own | valid
        classes = variables.params["relation"]["head"]["bias"].shape[0]
        head = RelationHead(classes, self.heads)
        return head.apply({"params": variables.params["relation"]}, features, similarity, visible)  # pyright: ignore[reportReturnType] - no collection is mutable

    def loss_from_embeddings(
        self,
        variables: Variables,
        embeddings: Mapping[str, jax.Array],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        logits, _ = self.related(variables, embeddings["embedding"], batch, alone=False)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        right = {"top1": logits}
        if self.direct:
            plain = embeddings["logits"]
            second = cross_entropy(plain, targets, "softmax", self.label_smoothing)
            losses, right["direct_top1"] = losses + self.direct * second, plain
        answer = jnp.argmax(targets, -1)
        correct = {name: jnp.argmax(each, -1) == answer for name, each in right.items()}
        return averaged(losses, labelled & batch["_mask"], {}, **correct)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``; with ``direct`` also ``logits/direct`` (B, K), float32."""
        out, _ = self.encode(variables, batch, ctx)
        logits, refined = self.related(variables, out["embedding"], batch, self.alone)
        direct = {"logits/direct": out["logits"]} if self.direct else {}
        return {**classified(logits, refined), **direct}
