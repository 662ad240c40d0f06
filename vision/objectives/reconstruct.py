"""Autoencoding: the image comes out of a tower that sees it, or a noisy copy of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.core.net import Tower, forward, initialise
from vision.core.objective import Aux, Batch, Context, Variables

Tree = Any


@dataclasses.dataclass(frozen=True)
class Reconstruct:
    """Mean squared error of ``out["reconstruction"]`` against ``batch["image"]``, in 0..1.

    Attributes:
      model: a tower with a reconstruction; filled in from ``config.model``.
      noise: standard deviation of what is added to the image that the tower sees in training
        (Vincent et al., Extracting and composing robust features with denoising autoencoders,
        2008); 0 for none.
    """

    model: Tower
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ValueError(f"noise={self.noise}, but it is 0 or positive")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, model_state = initialise(self.model, key, batch["image"])
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        image = batch["image"]
        seen = image
        if self.noise and ctx.train:
            key = ctx.rng("noise")
            assert key is not None
            seen = image + self.noise * jax.random.normal(key, image.shape, image.dtype)
        _, out, state = forward(
            self.model,
            params["model"],
            ctx.model_state["model"],
            seen,
            train=ctx.train,
            key=ctx.rng("dropout"),
        )
        gap = (out["reconstruction"].astype(jnp.float32) - image.astype(jnp.float32)) ** 2
        weight = batch["_mask"] / jnp.maximum(batch["_mask"].sum(), 1)
        loss = jnp.sum(gap.reshape(len(gap), -1).mean(1) * weight)
        return loss, Aux(model_state={"model": state})

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """``embedding`` (B, D) and ``reconstruction`` (B, H, W, C), float32."""
        embedding, out, _ = forward(
            self.model, params["model"], ctx.model_state["model"], batch["image"], train=False
        )
        found = {"embedding": embedding, "reconstruction": out["reconstruction"]}
        return {name: x.astype(jnp.float32) for name, x in found.items()}
