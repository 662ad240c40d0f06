"""A causal text decoder with an image prefix: captions, answers, boxes as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.layers import as_output, dense, layer_norm
from vision.models.text import check_ids, token_table
from vision.models.transformer import Block, clip_init, run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, Tower, Tree, apply_tap, forward

Out = dict[str, jax.Array]


@checked
class Captioner(nn.Module):
    """A causal decoder over the projected tokens of an image tower followed by those of a text.

    Called with a dict of ``image`` (B, H, W, C) and ``text`` int ids (B, T). ``out`` has ``prefix``
    (B, N, D), the projected image tokens, and of the text ``stem``, ``tokens`` (B, T, D) and
    ``token_logits`` (B, T, vocab_size): of the token after each position. Positions attend to the
    image and to earlier ones only, so padding at the end changes nothing. The embedding is the mean
    of the prefix.

    To sample many texts for an image, it is encoded once: ``forward(..., image, method="see")``,
    then ``forward(..., prefix, ids, method="write")``.

    Attributes:
      image: the image tower, which gives ``tokens`` and has no head.
      vocab_size: ids are 0..vocab_size - 1.
      width, depth, heads: of the decoder; ``mlp_dim`` is four times the width.
      context: maximum number of tokens of a text.
      precision: number formats of the decoder.
    """

    image: Tower
    vocab_size: Positive[int]
    width: Positive[int] = 256
    depth: Positive[int] = 4
    heads: Positive[int] = 4
    context: Positive[int] = 64
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        super().__post_init__()

    def setup(self) -> None:
        self.image_projection = nn.Dense(
            self.width,
            dtype=self.precision.compute,
            param_dtype=self.precision.params,
            kernel_init=nn.initializers.lecun_normal(),
        )
        self.text = Decoder(
            self.vocab_size, self.width, self.depth, self.heads, self.context, self.precision
        )

    def __call__(
        self, inputs: Mapping[str, jax.Array], *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        embedding, out = self.see(inputs["image"], train=train, tap=tap)
        return embedding, out | self.write(out["prefix"], inputs["text"], train=train, tap=tap)[1]

    def see(
        self, image: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        """The image alone: ``prefix``."""
        tokens = self.image(image, train=train)[1]["tokens"]  # pyright: ignore[reportCallIssue]
        prefix = apply_tap(tap, "prefix", constrain_batch(self.image_projection(tokens)))
        return prefix.mean(1, dtype=jnp.float32), {"prefix": prefix}

    def write(
        self, prefix: jax.Array, ids: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        """The text after a prefix: ``stem``, ``tokens``, ``token_logits``."""
        out = self.text(prefix, ids, tap)
        return out["tokens"].mean(1, dtype=jnp.float32), out


class Decoder(nn.Module):
    """Causal transformer over a prefix (B, N, D) and ids (B, T).

    Attributes:
      vocab_size: number of ids.
      width: D.
      depth, heads: of the blocks.
      context: most ids of a text.
      precision: number formats.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    context: int
    precision: Precision

    @nn.compact
    def __call__(self, prefix: jax.Array, ids: jax.Array, tap: Tap | None) -> Out:
        check_ids(ids, self.context)
        x = token_table(self.vocab_size, self.width, self.precision)(ids)
        shape = (self.context, self.width)
        init = nn.initializers.normal(0.01)
        places = self.param("pos_embed", init, shape, self.precision.params)
        x = constrain_batch(x + places[: ids.shape[1]].astype(x.dtype))
        x = apply_tap(tap, "stem", x)
        out = {"stem": x}
        fields: Mapping[str, Any] = {
            "heads": self.heads,
            "mlp_dim": 4 * self.width,
            "dropout": 0.0,
            "layer_scale": None,
            "qkv_bias": True,
            "precision": self.precision,
            "attention": None,
            "kernels": clip_init(self.width, self.depth),
            "causal": True,
        }
        both = jnp.concatenate([prefix.astype(x.dtype), x], 1)
        both, _ = run_blocks(
            self, Block, fields, both, depth=self.depth, scan=True, remat="none", tap=tap
        )
        x = layer_norm(both[:, prefix.shape[1] :], self.precision, "norm")
        x = out["tokens"] = apply_tap(tap, "tokens", x)
        small = nn.initializers.normal(0.02)
        logits = dense(x, self.vocab_size, as_output(self.precision), "token_head", small)
        out["token_logits"] = apply_tap(tap, "token_logits", logits)
        return out


def sample(
    model: Captioner,
    params: Tree,
    model_state: Mapping[str, Tree],
    prefix: jax.Array,
    key: jax.Array | None,
    *,
    length: int,
    begin: int | jax.Array,
    end: int,
    pad: int = 0,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Samples texts from image prefixes, token by token; traceable.

    Args:
      prefix: (B, N, D), as ``see`` gives it.
      key: randomness; not needed at temperature 0.
      length: tokens of a row, ``begin`` included.
      begin: first token of every row, or of each, (B,).
      end: the token that ends a text; after it comes ``pad``.
      temperature: of the logits; 0 takes the most likely token.

    Returns:
      Ids int32 (B, length), and float32 (B, length - 1): log-probabilities of all but the first,
      as they were drawn; 0 for padding after the end.
    """
    if temperature < 0 or (temperature and key is None):
        raise ValueError(f"temperature={temperature}: at least 0, and above that with a key")
    rows = len(prefix)
    ids = jnp.full((rows, length), pad, jnp.int32).at[:, 0].set(begin)

    def step(carry: tuple[jax.Array, jax.Array], t: jax.Array) -> Any:
        ids, done = carry
        out = forward(model, params, model_state, prefix, ids, train=False, method="write")[1]
        logits = jax.lax.dynamic_index_in_dim(out["token_logits"], t, 1, keepdims=False)
        logits = logits.astype(jnp.float32)
        if temperature:
            assert key is not None
            logits = logits / temperature
            token = jax.random.categorical(jax.random.fold_in(key, t), logits)
        else:
            token = jnp.argmax(logits, -1)
        log_probabilities = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], 1)[:, 0]
        token = jnp.where(done, pad, token).astype(jnp.int32)
        ids = jax.lax.dynamic_update_index_in_dim(ids, token, t + 1, 1)
        return (ids, done | (token == end)), jnp.where(done, 0.0, log_probabilities)

    start = (ids, jnp.zeros(rows, bool))
    (ids, _), log_probabilities = jax.lax.scan(step, start, jnp.arange(length - 1))
    return ids, log_probabilities.T
