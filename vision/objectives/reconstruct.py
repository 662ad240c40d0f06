"""Autoencoding: reconstruction of the image from itself or from a noisy copy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, checked
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class Reconstruct(Objective):
    """Mean squared error of ``out["reconstruction"]`` against ``batch["image"]``, in 0..1.

    Attributes:
      model: a tower with a reconstruction; filled in from ``config.model``.
      noise: standard deviation of the noise added to the input in training
        (Vincent et al., Extracting and composing robust features with denoising autoencoders,
        2008); 0 for none.
    """

    noise: NonNegative[float] = 0.0

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        inputs = image = batch["image"]
        if self.noise and ctx.train:
            noise = jax.random.normal(ctx.rng("noise"), image.shape, image.dtype)
            inputs = image + self.noise * noise
        out, state = apply(self.model, variables, inputs, ctx)
        squared_error = (out["reconstruction"].astype(jnp.float32) - image.astype(jnp.float32)) ** 2
        return averaged(
            squared_error.reshape(len(squared_error), -1).mean(1), batch["_mask"], state
        )

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``embedding`` (B, D) and ``reconstruction`` (B, H, W, C), float32."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return {name: out[name].astype(jnp.float32) for name in ("embedding", "reconstruction")}
