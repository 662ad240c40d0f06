"""Captioning: next-token prediction from the image and the true previous tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vision.models.captioner import Captioner, sample
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import initialise

Tree = Any


@dataclasses.dataclass(frozen=True)
class Caption(Objective):
    """Cross-entropy of every next token, averaged over the tokens of a text, then over texts.

    ``batch["image"]`` (B, H, W, C) and ``batch["text"]`` int (B, T): the first token is given,
    and padding is not predicted.

    Attributes:
      model: filled in from ``config.model``.
      end: token that ends a text in ``predict``.
      pad: id of padding.
    """

    model: Captioner
    end: int = 2
    pad: int = 0

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, model_state = initialise(self.model, key, self._inputs(batch))
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, self._inputs(batch), ctx)
        logits, targets = out["token_logits"][:, :-1].astype(jnp.float32), batch["text"][:, 1:]
        counted = targets != self.pad

        def mean(x: jax.Array) -> jax.Array:
            """(B, T) to (B,): mean over the tokens that are predicted."""
            return (x * counted).sum(1) / jnp.maximum(counted.sum(1), 1)

        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        correct = jnp.argmax(logits, -1) == targets
        return averaged(mean(losses), batch["_mask"], state, token_accuracy=mean(correct))

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``ids`` int32 (B, T), the most likely tokens after the first of ``batch["text"]``, and
        ``embedding`` (B, D)."""
        text = batch["text"]
        out, _ = apply(self.model, variables, batch["image"], ctx, method="see")
        ids, _ = sample(
            self.model,
            variables.params["model"],
            variables.model_state["model"],
            out["prefix"],
            None,
            length=text.shape[1],
            begin=text[:, 0],
            end=self.end,
            pad=self.pad,
            temperature=0.0,
        )
        return {"ids": ids, "embedding": out["embedding"].astype(jnp.float32)}

    def _inputs(self, batch: Batch) -> dict[str, jax.Array]:
        return {"image": batch["image"], "text": batch["text"]}
