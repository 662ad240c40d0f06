"""Masked language modelling: pretraining of a text tower."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.config.errors import UserError
from vision.config.ranges import Gt, Lt, NonNegative, checked
from vision.data.tokenize import Tokenizer
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged
from vision.train.tower import initialise

Tree = Any


class MaskedLanguageError(UserError):
    """The text tower or the batch is not suitable for masked language modelling."""


@dataclasses.dataclass(frozen=True)
@checked
class MaskedLanguage(Objective):
    r"""BERT's masked language model (Devlin et al., 2019), without its sentence pairs.

    In every step a random share of the tokens of every text is selected, at least one, never
    padding, bos or eos. Most are replaced by the mask, some by a random word, the others kept. The
    loss is the mean cross-entropy (nats) over the selected tokens of the batch.

    The batch has ``batch[field]``, int32 ids (B, T), or (B, C, T) of C texts per row; rows of
    padding only do not count. Metrics: ``masked_accuracy``, and ``masked_tokens`` per row.

    The tower has ``masked_head=True`` and one more id than the tokenizer, for the mask. To continue
    with a dual encoder, pass the same model as in its training and ``dual=True``: only its text
    tower is trained, under its final parameter names, so that
    ``vision.checkpoint.reading.load_matching`` loads them by ``params\.model\.text\.(?!masked_)``.

    Attributes:
      model: a text tower, or a dual encoder; filled in from ``config.model``.
      tokenizer: of the texts.
      dual: whether the model is a dual encoder.
      field: name of the ids.
      rate: share of a text's tokens that is selected, in (0, 1).
      mask, random: shares of the selected tokens that become the mask, or a random word.
      mask_id: id of the mask; None: the first id beyond the tokenizer's.
    """

    tokenizer: Tokenizer
    dual: bool = False
    field: str = "text"
    rate: Annotated[float, Gt(0), Lt(1)] = 0.15
    mask: float = 0.8
    random: float = 0.1
    mask_id: NonNegative[int] | None = None

    def __post_init__(self) -> None:
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1:
            raise ValueError(
                f"mask={self.mask}, random={self.random}: shares, at least 0 and at most 1 together"
            )

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        ids = self._ids(batch)
        positions = jnp.zeros((len(ids), 1), jnp.int32)
        if self.dual:
            inputs: Any = {"text": ids, "text_positions": positions}
            params, model_state = initialise(self.model, key, inputs)
        else:
            params, model_state = initialise(self.model, key, ids)
        return Variables({"model": params}, {"model": model_state}, {})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        ids = self._ids(batch)
        hidden, positions, chosen = self.hide(ids, ctx.rng("masked_language"))
        out, state = self._encode(variables, ctx, hidden, positions)
        logits = out["token_logits"].astype(jnp.float32)
        self._check_vocabulary(logits.shape[-1])
        chosen &= jnp.repeat(batch["_mask"], len(ids) // len(batch["_mask"]))[:, None]
        true = jnp.take_along_axis(ids, positions, 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, true)
        return averaged(
            losses,
            chosen,
            state,
            masked_accuracy=jnp.argmax(logits, -1) == true,
            masked_tokens=jnp.sum(chosen) / jnp.maximum(jnp.sum(batch["_mask"]), 1),
        )

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``text/embedding`` and the same as ``embedding``, (B, D) or (B C, D) float32."""
        out, _ = self._encode(variables, ctx, self._ids(batch))
        embedding = out["embedding"].astype(jnp.float32)
        return {"embedding": embedding, "text/embedding": embedding}

    def hide(self, ids: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Texts with masked tokens, and their positions.

        Args:
          ids: int (N, T).
          key: randomness.

        Returns:
          Input ids (N, T); positions int32 (N, M), M = max(1, round(rate T)); and (N, M) bool:
          which of the positions count.
        """
        max_hidden = max(1, round(self.rate * ids.shape[1]))
        k_place, k_kind, k_word = jax.random.split(key, 3)
        special, words = self._tables
        eligible = ~jnp.isin(ids, special)
        order = jnp.where(eligible, jax.random.uniform(k_place, ids.shape), -1.0)
        positions = jax.lax.top_k(order, max_hidden)[1]
        count = jnp.sum(eligible, 1)
        num_hidden = jnp.where(count > 0, jnp.maximum(1, jnp.round(self.rate * count)), 0)
        chosen = jnp.arange(max_hidden) < num_hidden[:, None]
        old = jnp.take_along_axis(ids, positions, 1)
        kind = jax.random.uniform(k_kind, positions.shape)
        any_word = jnp.asarray(words, ids.dtype)[
            jax.random.randint(k_word, positions.shape, 0, len(words))
        ]
        new = jnp.where(kind < self.mask + self.random, any_word, old)
        new = jnp.where(kind < self.mask, self._mask_id, new)
        new = jnp.where(chosen, new, old)
        return jnp.put_along_axis(ids, positions, new, 1, inplace=False), positions, chosen

    @property
    def _mask_id(self) -> int:
        return self.tokenizer.vocab_size if self.mask_id is None else self.mask_id

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids that are never selected, and all others of the tokenizer."""
        ends = (self.tokenizer.pad_id, self.tokenizer.bos_id, self.tokenizer.eos_id, self._mask_id)
        special = np.asarray([i for i in ends if i is not None], np.int32)
        return special, np.setdiff1d(np.arange(self.tokenizer.vocab_size), special)

    def _ids(self, batch: Batch) -> jax.Array:
        if self.field not in batch:
            raise MaskedLanguageError(
                f"the batch has no {self.field!r}; it has {', '.join(sorted(batch))}: add "
                "ops.Tokenize to config.data"
            )
        ids = batch[self.field]
        return ids.reshape(-1, ids.shape[-1])

    def _encode(
        self, variables: Variables, ctx: Context, ids: jax.Array, positions: jax.Array | None = None
    ) -> tuple[dict[str, jax.Array], dict[str, Tree]]:
        """The text tower's ``out``, and the model's new state."""
        if not self.dual:
            arguments: Any = {} if positions is None else {"positions": positions}
            return apply(self.model, variables, ids, ctx, **arguments)
        inputs = {"text": ids} if positions is None else {"text": ids, "text_positions": positions}
        out, state = apply(self.model, variables, inputs, ctx)
        return {name.removeprefix("text/"): value for name, value in out.items()}, state

    def _check_vocabulary(self, size: int) -> None:
        if size <= self._mask_id:
            raise MaskedLanguageError(
                f"the text tower has vocab_size={size}, and the mask is id {self._mask_id}: set "
                f"vocab_size to at least {max(self._mask_id + 1, self.tokenizer.vocab_size)}"
            )
