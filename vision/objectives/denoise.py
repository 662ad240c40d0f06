"""Learning to tell the noise in an image: the training of a diffusion model."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.blocks.diffusion import Diffusion
from vision.core.net import Tower, forward, initialise
from vision.core.objective import Aux, Batch, Context, Variables

Tree = Any


@dataclasses.dataclass(frozen=True)
class Denoise:
    """Mean squared error between the noise in x_t and what the tower takes for it.

    ``batch["image"]`` is float (B, H, W, C), about -1..1. Of every image and step, the time is
    drawn evenly and the noise anew: the simple loss of Ho et al., Denoising Diffusion Probabilistic
    Models, 2020.

    Attributes:
      model: ``vision.models.unet.UNet``; filled in from ``config.model``.
      diffusion: its noise.
    """

    model: Tower
    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        time = jnp.zeros(len(batch["image"]), jnp.int32)
        params, model_state = initialise(self.model, key, batch["image"], time)
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        image, k_time, k_noise = batch["image"], ctx.rng("time"), ctx.rng("noise")
        assert k_time is not None
        assert k_noise is not None
        time = jax.random.randint(k_time, (len(image),), 0, self.diffusion.steps)
        noise = jax.random.normal(k_noise, image.shape, image.dtype)
        _, out, state = forward(
            self.model,
            params["model"],
            ctx.model_state["model"],
            self.diffusion.noised(image, time, noise),
            time,
            train=ctx.train,
            key=ctx.rng("dropout"),
        )
        error = jnp.mean((out["noise"].astype(jnp.float32) - noise) ** 2, axis=(1, 2, 3))
        mask = batch["_mask"]
        loss = jnp.sum(error * mask) / jnp.maximum(mask.sum(), 1)
        return loss, Aux(model_state={"model": state})

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """All that the tower gives of ``batch["image"]`` at ``batch["time"]``.

        The images are taken as they are, x_t: nothing is added. ``time`` is int (B,) or (); without
        one it is 0. ``noise`` is what ``Diffusion.sample`` asks for; the blocks are features.
        """
        image = batch["image"]
        time = jnp.broadcast_to(jnp.asarray(batch.get("time", 0), jnp.int32), image.shape[:1])
        return forward(
            self.model, params["model"], ctx.model_state["model"], image, time, train=False
        )[1]
