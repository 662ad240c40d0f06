"""Denoising: the training of a diffusion model to predict noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.blocks.diffusion import Diffusion
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import initialise

Tree = Any


@dataclasses.dataclass(frozen=True)
class Denoise(Objective):
    """Mean squared error between the noise in x_t and the tower's prediction.

    ``batch["image"]`` is float (B, H, W, C), about -1..1. For every image in every step, time
    is drawn uniformly and noise from a normal distribution: the simple loss of Ho et al., Denoising
    Diffusion Probabilistic Models, 2020.

    Attributes:
      model: ``vision.models.unet.UNet``; filled in from ``config.model``.
      diffusion: the noise schedule.
    """

    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        time = jnp.zeros(len(batch["image"]), jnp.int32)
        params, model_state = initialise(self.model, key, batch["image"], time)
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        image = batch["image"]
        time = jax.random.randint(ctx.rng("time"), (len(image),), 0, self.diffusion.steps)
        noise = jax.random.normal(ctx.rng("noise"), image.shape, image.dtype)
        noised = self.diffusion.noised(image, time, noise)
        out, state = apply(self.model, variables, noised, ctx, time=time)
        error = jnp.mean((out["noise"].astype(jnp.float32) - noise) ** 2, axis=(1, 2, 3))
        return averaged(error, batch["_mask"], state)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The tower's ``out`` for ``batch["image"]`` at ``batch["time"]``.

        The images are x_t: no noise is added. ``time`` is int (B,) or (), by default 0. ``noise``
        is the prediction that ``Diffusion.sample`` needs; the blocks are features.
        """
        image = batch["image"]
        time = jnp.broadcast_to(jnp.asarray(batch.get("time", 0), jnp.int32), image.shape[:1])
        return apply(self.model, variables, image, ctx, time=time)[0]
