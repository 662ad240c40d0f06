"""Learning a codebook of patches: the training of a tokenizer of images."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.core.net import Tower, forward, initialise
from vision.core.objective import Aux, Batch, Context, Variables

Tree = Any


@dataclasses.dataclass(frozen=True)
class Quantise:
    """``|x - decoded|^2 + |sg(z) - e|^2 + commitment |z - sg(e)|^2``, sg without a gradient.

    z are a patch's latents and e the entry of the codebook that is nearest; van den Oord et al.,
    Neural Discrete Representation Learning, 2017. Squares are means over pixels, and sums over the
    dimensions of the codebook. The codebook begins with latents of the first batch.

    ``batch["image"]`` is float (B, H, W, C). Metrics: ``pixels``, the first term, and
    ``perplexity`` of the entries that a batch uses: 1 if all patches take the same, K if all
    entries are used alike.

    Attributes:
      model: ``vision.models.vq.VqAutoencoder``; filled in from ``config.model``.
      commitment: weight of the last term.
    """

    model: Tower
    commitment: float = 0.25

    def __post_init__(self) -> None:
        if self.commitment < 0:
            raise ValueError(f"commitment={self.commitment}, but it is 0 or positive")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, model_state = initialise(self.model, key, batch["image"])
        return Variables({"model": params}, {"model": model_state}, {})

    def begin(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        params = variables.params["model"]
        state = variables.model_state["model"]
        out = forward(self.model, params, state, batch["image"], train=False)[1]
        book = params["codebook"]
        found = out["latent"].reshape(-1, book.shape[-1])
        chosen = jax.random.choice(key, len(found), (len(book),), replace=len(found) < len(book))
        params = {**params, "codebook": found[chosen].astype(book.dtype)}
        return dataclasses.replace(variables, params={**variables.params, "model": params})

    def loss(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        image, mask = batch["image"], batch["_mask"]
        _, out, state = forward(
            self.model,
            params["model"],
            ctx.model_state["model"],
            image,
            train=ctx.train,
            key=ctx.rng("dropout"),
        )
        count = jnp.maximum(mask.sum(), 1)

        def mean(rows: jax.Array) -> jax.Array:
            return jnp.sum(rows.reshape(len(mask), -1).mean(1) * mask) / count

        still = jax.lax.stop_gradient
        latent, codes = out["latent"], out["codes"]
        pixels = mean((out["reconstruction"].astype(jnp.float32) - image) ** 2)
        book = mean(jnp.sum((still(latent) - codes) ** 2, -1))
        commit = mean(jnp.sum((latent - still(codes)) ** 2, -1))
        entries = params["model"]["codebook"].shape[0]
        used = jax.nn.one_hot(out["ids"], entries).mean((1, 2))
        share = jnp.sum(used * mask[:, None], 0) / count
        entropy = -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12)))
        metrics = {"pixels": pixels, "perplexity": jnp.exp(entropy)}
        loss = pixels + book + self.commitment * commit
        return loss, Aux(metrics, model_state={"model": state})

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """All that the tower gives, ``ids``, ``reconstruction`` and ``embedding`` among it, and
        ``error`` (B,), the mean squared one of the pixels."""
        image, state = batch["image"], ctx.model_state["model"]
        out = forward(self.model, params["model"], state, image, train=False)[1]
        return {**out, "error": jnp.mean((out["reconstruction"] - image) ** 2, axis=(1, 2, 3))}
