"""Contrastive learning from two views of every image, without labels.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), 2020.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vision.core.net import Tower, forward, initialise
from vision.core.objective import Aux, Batch, Context, Variables, coupled_loss
from vision.models.projector import Projector

Tree = Any


@dataclasses.dataclass(frozen=True)
class TwoViews:
    """NT-Xent between projections of two views: see ``nt_xent``.

    Training batches have ``image`` (B, 2, H, W, C), as ``vision.data.ops.Views`` makes it; others
    (B, H, W, C). The projector is the network ``projector``.

    Attributes:
      model: a tower; filled in from ``config.model``.
      projection: widths of the dense layers between the embedding and the loss.
      temperature: of the softmax over cosines.
    """

    model: Tower
    projection: tuple[int, ...] = (256, 128, 50)
    temperature: float = 0.1

    batch_coupled: ClassVar[bool] = True
    loss = coupled_loss

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}, but it is positive")

    @property
    def projector(self) -> Projector:
        return Projector(self.projection)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_projector = jax.random.split(key)
        params, model_state = initialise(self.model, k_model, batch["image"][:, 0])
        seen = jax.eval_shape(
            lambda: forward(self.model, params, model_state, batch["image"][:, 0], train=False)[0]
        )
        projector, _ = initialise(self.projector, k_projector, jnp.zeros(seen.shape, seen.dtype))
        return Variables({"model": params, "projector": projector}, {"model": model_state}, {})

    def embed(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        """Projections (B, 2, D) float32."""
        image = batch["image"]
        embedding, _, state = forward(
            self.model,
            params["model"],
            ctx.model_state["model"],
            image.reshape(-1, *image.shape[2:]),
            train=ctx.train,
            key=ctx.rng("dropout"),
        )
        projected, _, _ = forward(
            self.projector, params["projector"], {}, embedding, train=ctx.train
        )
        rows = projected.reshape(*image.shape[:2], -1).astype(jnp.float32)
        return rows, Aux(model_state={"model": state})

    def couple(
        self,
        params: dict[str, Tree],
        embedded: jax.Array,
        slots: dict[str, Tree],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        losses, found = nt_xent(embedded, batch["_mask"], self.temperature)
        weight = batch["_mask"] / jnp.maximum(batch["_mask"].sum(), 1)
        return jnp.sum(losses * weight), Aux({"top1": jnp.sum(found * weight)})

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """``embedding`` (B, D) of the tower, and the projector's layers ``projector/block00``..
        and ``projector/embedding``, float32."""
        embedding, _, _ = forward(
            self.model, params["model"], ctx.model_state["model"], batch["image"], train=False
        )
        _, out, _ = forward(self.projector, params["projector"], {}, embedding, train=False)
        found = {f"projector/{name}": x for name, x in out.items()} | {"embedding": embedding}
        return {name: x.astype(jnp.float32) for name, x in found.items()}


def nt_xent(
    projected: jax.Array, mask: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Every view must find the other one of its image among all other views of the batch.

    With unit vectors z and s = z z' / temperature, the loss of view i with partner p is
    -s_ip + log sum over j != i of exp s_ij.

    Args:
      projected: (B, 2, D).
      mask: (B,) bool, images that take part.
      temperature: positive.

    Returns:
      Losses (B,), the mean of both views' in nats, and (B,) the share of them that were right.
    """
    rows = len(projected)
    z = projected / jnp.maximum(jnp.linalg.norm(projected, axis=-1, keepdims=True), 1e-12)
    z = jnp.swapaxes(z, 0, 1).reshape(2 * rows, -1)
    there = jnp.tile(mask, 2)
    allowed = ~jnp.eye(2 * rows, dtype=bool) & there[None]
    precision = jax.lax.Precision.HIGHEST
    logits = jnp.where(allowed, jnp.dot(z, z.T, precision=precision) / temperature, -1e30)
    partner = jnp.roll(jnp.arange(2 * rows), rows)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), partner[:, None], 1)[:, 0]
    right = jnp.argmax(logits, 1) == partner
    return losses.reshape(2, rows).mean(0), right.reshape(2, rows).mean(0)
