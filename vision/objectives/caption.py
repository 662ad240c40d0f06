"""Captions told token by token, from the image and the true tokens before."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vision.core.net import forward, initialise
from vision.core.objective import Aux, Batch, Context, Variables
from vision.models.captioner import Captioner, sample

Tree = Any


@dataclasses.dataclass(frozen=True)
class Caption:
    """Cross-entropy of every next token, its mean over the tokens of a text and over texts.

    ``batch["image"]`` (B, H, W, C) and ``batch["text"]`` int (B, T): the first token is given, and
    nothing is asked after the last that is not padding.

    Attributes:
      model: filled in from ``config.model``.
      end: token after which ``predict`` says no more.
      pad: of padding.
    """

    model: Captioner
    end: int = 2
    pad: int = 0

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, model_state = initialise(self.model, key, self._inputs(batch))
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        _, out, state = forward(
            self.model,
            params["model"],
            ctx.model_state["model"],
            self._inputs(batch),
            train=ctx.train,
            key=ctx.rng("dropout"),
        )
        logits, wanted = out["token_logits"][:, :-1].astype(jnp.float32), batch["text"][:, 1:]
        asked = wanted != self.pad
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
        weight = batch["_mask"] / jnp.maximum(batch["_mask"].sum(), 1)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(weight * (x * asked).sum(1) / jnp.maximum(asked.sum(1), 1))

        right = jnp.argmax(logits, -1) == wanted
        return mean(losses), Aux({"token_accuracy": mean(right)}, model_state={"model": state})

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """``ids`` int32 (B, T), the likeliest tokens after the first of ``batch["text"]``, and
        ``embedding`` (B, D)."""
        weights, state = params["model"], ctx.model_state["model"]
        image, text = batch["image"], batch["text"]
        embedding, out, _ = forward(self.model, weights, state, image, train=False, method="see")
        ids, _ = sample(
            self.model,
            weights,
            state,
            out["prefix"],
            None,
            length=text.shape[1],
            begin=text[:, 0],
            end=self.end,
            pad=self.pad,
            temperature=0.0,
        )
        return {"ids": ids, "embedding": embedding.astype(jnp.float32)}

    def _inputs(self, batch: Batch) -> dict[str, jax.Array]:
        return {"image": batch["image"], "text": batch["text"]}
