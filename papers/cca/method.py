"""CCA: one network, an embedding space for every attribute that is asked about.

Images that are alike in shape need not be in colour, and one embedding for all attributes mixes
them up. A vision transformer encodes the image once; a learned query for every condition a then
attends to its tokens in a few more blocks, and gives the image's place in the space of a:

    c_0 = query_a,   c_k = CrossBlock_k(c_{k-1}, tokens),   f(x, a) = W LN(c_K) / |W LN(c_K)|
    L   = mean over a, and over triplets (x, x+, x-) whose attribute a is the same and another, of
          max(0, m - f(x, a) f(x+, a) + f(x, a) f(x-, a))

``shared=True`` is the entangled baseline: one query, one space for all attributes.

Song et al., Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in
Only a SINGLE Network, 2023. There is no public code. How many blocks are conditional and how a
condition is encoded is not known: here one block, and a learned vector per condition. Triplets are
all those of a batch, where the protocol of ASEN (Ma et al., 2020) draws a list of them beforehand;
its margin of 0.2 is kept. No FLOPs of the published network are known to us.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.cca.head import ConditionHead
from papers.cca.triplets import triplet_losses
from vision.config.ranges import NonEmpty, NonNegative, Positive, Unique, checked
from vision.train.objective import (
    Aux,
    Batch,
    BatchCoupled,
    Context,
    Variables,
    apply,
    output_shapes,
)
from vision.train.precision import Precision


@dataclasses.dataclass(frozen=True)
@checked
class ConditionalEmbedding(BatchCoupled):
    """See the module. ``batch["image"]``; ``batch["attributes"]`` whole numbers (B, ...), -1 for
    unknown.

    Attributes:
      model: a tower with ``tokens``; its head, if there is one, is not used.
      names: of the attributes that have a space.
      columns: where each is among an image's ``attributes``, read in order; None: all, in order.
      width: of an embedding.
      blocks: conditional blocks after the tower.
      heads: of their attention.
      margin: of the triplets.
      shared: all attributes share one query and so one space.
    """

    names: NonEmpty[Unique[tuple[str, ...]]] = ("attribute",)
    columns: Unique[tuple[NonNegative[int], ...]] | None = None
    width: Positive[int] = 512
    blocks: Positive[int] = 1
    heads: Positive[int] = 8
    margin: Positive[float] = 0.2
    shared: bool = False

    @property
    def _head(self) -> ConditionHead:
        precision = getattr(self.model, "precision", Precision())
        spaces = 1 if self.shared else len(self.names)
        return ConditionHead(spaces, self.width, self.blocks, self.heads, precision)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_head = jax.random.split(key)
        variables = super().init(k_model, batch)
        self._values(batch)
        out = output_shapes(self.model, variables, batch["image"])
        if "tokens" not in out:
            raise ValueError(f"{type(self.model).__name__} has no tokens to attend to")
        tokens = jnp.zeros((1, 2, out["tokens"].shape[-1]))
        head = self._head.init({"params": k_head}, tokens)["params"]
        return variables.merge(params={"condition": head})

    def _values(self, batch: Batch) -> jax.Array:
        """int (B, A) of the attributes that have a space."""
        values = batch["attributes"].reshape(len(batch["attributes"]), -1)
        columns = self.columns or tuple(range(values.shape[1]))
        if len(columns) != len(self.names) or max(columns) >= values.shape[1]:
            raise ValueError(
                f"names={self.names}, columns={columns}: one column each, of the "
                f"{values.shape[1]} attributes of an image"
            )
        return jnp.asarray(values)[:, jnp.array(columns)].astype(jnp.int32)

    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        """Embeddings (B, A, width) of length 1, float32."""
        out, state = apply(self.model, variables, batch["image"], ctx)
        params = {"params": variables.params["condition"]}
        spaces: Any = self._head.apply(params, out["tokens"])
        if self.shared:
            spaces = jnp.repeat(spaces, len(self.names), 1)
        return spaces, Aux(model_state=state)

    def loss_from_embeddings(
        self, variables: Variables, embeddings: Any, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        total, weight, metrics = jnp.zeros(()), jnp.zeros(()), {}
        values = self._values(batch)
        for i, name in enumerate(self.names):
            loss, right, count = triplet_losses(
                embeddings[:, i], values[:, i], batch["_mask"], self.margin
            )
            total, weight = total + loss, weight + (count > 0)
            metrics[f"triplets_{name}"] = right
        return total / jnp.maximum(weight, 1), Aux(metrics, weight=batch["_mask"].sum())

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> Mapping[str, jax.Array]:
        """``embedding/NAME`` (B, width) of every attribute; ``embedding`` has all, one after the
        other."""
        spaces, _ = self.encode(variables, batch, ctx)
        named = {f"embedding/{name}": spaces[:, i] for i, name in enumerate(self.names)}
        return {**named, "embedding": spaces.reshape(len(spaces), -1)}
