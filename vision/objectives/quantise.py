"""VQ-VAE: learning a codebook of image patches."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, checked
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, masked_mean
from vision.train.tower import forward

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class Quantise(Objective):
    """``|x - decoded|^2 + |sg(z) - e|^2 + commitment |z - sg(e)|^2``, sg is stop_gradient.

    z are a patch's latents and e the nearest codebook entry; van den Oord et al.,
    Neural Discrete Representation Learning, 2017. Squares are means over pixels, and sums over the
    dimensions of the codebook. The codebook is initialised with latents of the first batch.

    ``batch["image"]`` is float (B, H, W, C). Metrics: ``pixels``, the first term, and
    ``perplexity`` of the codebook usage in a batch: 1 if all patches use the same entry, K if usage
    is uniform.

    Attributes:
      model: ``vision.models.vq.VqAutoencoder``; filled in from ``config.model``.
      commitment: weight of the last term.
    """

    commitment: NonNegative[float] = 0.25

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        params = variables.params["model"]
        state = variables.model_state["model"]
        out = forward(self.model, params, state, batch["image"], train=False)[1]
        book = params["codebook"]
        latents = out["latent"].reshape(-1, book.shape[-1])
        with_replacement = len(latents) < len(book)
        chosen = jax.random.choice(key, len(latents), (len(book),), replace=with_replacement)
        params = {**params, "codebook": latents[chosen].astype(book.dtype)}
        return variables.merge(params={"model": params})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        image, mask = batch["image"], batch["_mask"]
        out, state = apply(self.model, variables, image, ctx)

        def mean(x: jax.Array) -> jax.Array:
            return masked_mean(x.reshape(len(mask), -1).mean(1), mask)

        stop_gradient = jax.lax.stop_gradient
        latent, codes = out["latent"], out["codes"]
        pixels = mean((out["reconstruction"].astype(jnp.float32) - image) ** 2)
        book = mean(jnp.sum((stop_gradient(latent) - codes) ** 2, -1))
        commit = mean(jnp.sum((latent - stop_gradient(codes)) ** 2, -1))
        entries = variables.params["model"]["codebook"].shape[0]
        usage = jax.nn.one_hot(out["ids"], entries).mean((1, 2))
        frequency = jax.vmap(masked_mean, (1, None))(usage, mask)
        entropy = -jnp.sum(frequency * jnp.log(jnp.maximum(frequency, 1e-12)))
        metrics = {"pixels": pixels, "perplexity": jnp.exp(entropy)}
        return pixels + book + self.commitment * commit, Aux(metrics, model_state=state)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The tower's ``out``, and ``error`` (B,), the mean squared error of the pixels."""
        image = batch["image"]
        out, _ = apply(self.model, variables, image, ctx)
        return {**out, "error": jnp.mean((out["reconstruction"] - image) ** 2, axis=(1, 2, 3))}
