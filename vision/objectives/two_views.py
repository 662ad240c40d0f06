"""Contrastive learning from two views of every image, without labels.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), 2020.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.projector import Projector
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Variables, apply, averaged
from vision.train.tower import forward, initialise

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class TwoViews(BatchCoupled):
    """NT-Xent between projections of two views: see ``nt_xent``.

    Training batches have ``image`` (B, 2, H, W, C), as ``vision.data.ops.Views`` makes it; others
    (B, H, W, C). The projector is the network ``projector``.

    Attributes:
      model: a tower; filled in from ``config.model``.
      projection: widths of the dense layers between the embedding and the loss.
      temperature: of the softmax over cosines.
    """

    projection: tuple[int, ...] = (256, 128, 50)
    temperature: Positive[float] = 0.1

    @property
    def projector(self) -> Projector:
        return Projector(self.projection)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_projector = jax.random.split(key)
        image = batch["image"][:, 0]
        params, model_state = initialise(self.model, k_model, image)
        embedding = jax.eval_shape(
            lambda: forward(self.model, params, model_state, image, train=False)[0]
        )
        projector, _ = initialise(
            self.projector, k_projector, jnp.zeros(embedding.shape, embedding.dtype)
        )
        return Variables({"model": params, "projector": projector}, {"model": model_state}, {})

    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        """Projections (B, 2, D) float32."""
        image = batch["image"]
        flat = image.reshape(-1, *image.shape[2:])
        out, state = apply(self.model, variables, flat, ctx)
        projected = self._project(variables, out["embedding"], ctx)["embedding"]
        rows = projected.reshape(*image.shape[:2], -1).astype(jnp.float32)
        return rows, Aux(model_state=state)

    def _project(
        self, variables: Variables, embedding: jax.Array, ctx: Context
    ) -> dict[str, jax.Array]:
        return apply(self.projector, variables, embedding, ctx, network="projector")[0]

    def loss_from_embeddings(
        self, variables: Variables, embeddings: jax.Array, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        losses, correct = nt_xent(embeddings, batch["_mask"], self.temperature)
        return averaged(losses, batch["_mask"], top1=correct)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``embedding`` (B, D) of the tower, and the projector's layers ``projector/block00``..
        and ``projector/embedding``, float32."""
        embedding = apply(self.model, variables, batch["image"], ctx)[0]["embedding"]
        projected = self._project(variables, embedding, ctx)
        features = {f"projector/{name}": x for name, x in projected.items()}
        features["embedding"] = embedding
        return {name: x.astype(jnp.float32) for name, x in features.items()}


def nt_xent(
    projected: jax.Array, mask: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """NT-Xent: classify the other view of the same image among all other views of the batch.

    With unit vectors z and s = z z' / temperature, the loss of view i with partner p is
    -s_ip + log sum over j != i of exp s_ij.

    Args:
      projected: (B, 2, D).
      mask: (B,) bool, valid images.
      temperature: positive.

    Returns:
      Losses (B,), the mean of both views' in nats, and (B,) the share of correct ones.
    """
    rows = len(projected)
    z = projected / jnp.maximum(jnp.linalg.norm(projected, axis=-1, keepdims=True), 1e-12)
    z = jnp.swapaxes(z, 0, 1).reshape(2 * rows, -1)
    valid = jnp.tile(mask, 2)
    allowed = ~jnp.eye(2 * rows, dtype=bool) & valid[None]
    precision = jax.lax.Precision.HIGHEST
    logits = jnp.where(allowed, jnp.dot(z, z.T, precision=precision) / temperature, -1e30)
    partner = jnp.roll(jnp.arange(2 * rows), rows)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), partner[:, None], 1)[:, 0]
    correct = jnp.argmax(logits, 1) == partner
    return losses.reshape(2, rows).mean(0), correct.reshape(2, rows).mean(0)
