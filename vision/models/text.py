"""Text towers: a transformer, and a convolution over words.

Towers that ignore word order are in ``vision.models.bag_of_words``.

All are called with token ids, int (B, T), and return ``(embedding, out)`` as documented in
``vision.train.tower``, with one more entry in ``out``: ``mask`` (B, T) bool, true for real tokens.
Those are the tokens up to the last one that is not padding, so an id that also stands for a word
(CLIP's padding is its exclamation mark) is padding only at the end of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, Unique, checked
from vision.models.attention import Attend
from vision.models.layers import (
    Activation,
    Remat,
    activate,
    as_output,
    dense,
    dropout,
    layer_norm,
    rematerialise,
)
from vision.models.transformer import XAVIER, Block, MAPHead, clip_init, run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

TextPool = Literal["last", "argmax", "first", "mean", "map", "class"]

Out = dict[str, jax.Array]


@checked
class TextTransformer(nn.Module):
    """Transformer over token ids, causal or not.

    ``stem`` is (B, T, D): token vectors with their positions and, with ``segments``, a vector for
    the segment of the token. It is called with ``segment_ids`` int (B, T) then; without them all
    tokens belong to the first. ``tokens`` are those of all positions, padding included; ``mask``
    marks the real ones. Real tokens never attend to padding: in a causal tower because it comes
    last, in any other because it is masked. A row of padding alone gives finite, arbitrary numbers.

    With ``masked_head`` there is ``token_logits`` (B, T, vocab_size), or (B, M, vocab_size) at the
    ``positions`` int (B, M) that it is called with: logits of the tokens there, as in BERT (Devlin
    et al., 2019). A dense layer, the activation and a LayerNorm; their product with the table of
    token vectors, and a bias per token.

    With its defaults it is the text tower of CLIP ViT-B (Radford et al., 2021) but for the
    activation, the epsilon and ``pool="argmax"``: their feature is at the first token with the
    largest id, which is the end of text in CLIP's vocabulary. The last token is the same one, but
    in captions that spell the special token. BERT (Devlin et al., 2019) is ``causal=False,
    post_norm=True, segments=2, pool="first", pooler=True, norm_epsilon=1e-12``.

    Attributes:
      vocab_size: ids are 0..vocab_size - 1; an id beyond gives NaN.
      width, depth, heads: sizes.
      mlp_dim: hidden width of the MLPs; None for four times the width.
      context: maximum number of tokens of a row; rows may be shorter.
      causal: whether a token attends only to itself and earlier ones.
      pool: the ``last`` real token, the first with the largest id (``argmax``), the ``first`` of
        all, the ``mean`` of the real ones, attention pooling over them (``map``), or a learned
        token after all others (``class``), as in open_clip's CoCa: the last LayerNorm is of it
        alone, and it attends to what those weights were trained with, one token of padding too.
      pad_id: id of padding; None if there is none: all tokens are real.
      initialisation: ``clip`` is the paper's: normal, smaller the deeper; ``xavier`` as in ``ViT``.
      activation: of the MLPs; ``quick_gelu`` is that of the published CLIP weights.
      post_norm: LayerNorms follow the sums of the blocks instead of preceding their branches, and
        one, ``norm_stem``, follows the stem; there is none after the last block.
      segments: number of segment vectors; 0 for none.
      pooler: a dense layer and a tanh after pooling.
      norm_epsilon: added to the variances of all LayerNorms; CLIP: 1e-5.
      masked_head: whether it has a head that predicts masked tokens; not for causal towers.
      scan, remat, drop_path, dropout, layer_scale, qkv_bias, precision, attention: as in ``ViT``.
    """

    vocab_size: Positive[int]
    width: Positive[int] = 512
    depth: Positive[int] = 12
    heads: Positive[int] = 8
    mlp_dim: Positive[int] | None = None
    context: Positive[int] = 77
    causal: bool = True
    pool: TextPool = "last"
    pad_id: int | None = 0
    initialisation: Literal["clip", "xavier"] = "clip"
    activation: Activation = "gelu"
    post_norm: bool = False
    segments: NonNegative[int] = 0
    pooler: bool = False
    norm_epsilon: Positive[float] = 1e-6
    masked_head: bool = False
    scan: bool = True
    remat: Remat = "none"
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    layer_scale: float | None = None
    qkv_bias: bool = True
    precision: Precision = Precision()
    attention: Attend | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        check_pad_id(self.pad_id, self.vocab_size)
        if self.masked_head and self.causal:
            raise ValueError(
                "masked_head=True needs causal=False: masked tokens are predicted from both sides"
            )
        if self.pool == "class" and (not self.causal or self.post_norm or self.pad_id is None):
            raise ValueError("pool='class' needs causal=True, post_norm=False and a pad_id")
        super().__post_init__()

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        stem = ("token_embed", "pos_embed", "segment_embed", "norm_stem", "cls_token")
        return chain_layers_above(path[0], self.depth, stem)

    @nn.compact
    def __call__(
        self,
        ids: jax.Array,
        *,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        train: bool = False,
        tap: Tap | None = None,
    ) -> tuple[jax.Array, Out]:
        check_ids(ids, self.context)
        if segment_ids is not None and not self.segments:
            raise ValueError("segment_ids are for a tower with segments")
        if positions is not None and not self.masked_head:
            raise ValueError("positions are for a tower with masked_head=True")
        key = self.make_rng("dropout") if train and (self.dropout or self.drop_path) else None
        stem_key, block_key = (None, None) if key is None else jax.random.split(key)
        mask = real_tokens(ids, self.pad_id)

        table = token_table(self.vocab_size, self.width, self.precision)
        x = constrain_batch(table(ids))
        init = nn.initializers.normal(0.01)
        classed = self.pool == "class"
        shape = (self.context + classed, self.width)
        places = self.param("pos_embed", init, shape, self.precision.params)
        if classed:
            cls = self.param("cls_token", init, (self.width,), self.precision.params)
            cls = jnp.broadcast_to(cls.astype(x.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([x, cls], 1)
        x = x + places[: x.shape[1]].astype(x.dtype)
        if self.segments:
            x = x + self._segments(segment_ids).astype(x.dtype)
        if self.post_norm:
            x = layer_norm(x, self.precision, "norm_stem", self.norm_epsilon)
        x = constrain_batch(dropout(x, stem_key, self.dropout))
        out = {"stem": apply_tap(tap, "stem", x)}

        mlp_dim = self.mlp_dim or 4 * self.width
        clip = self.initialisation == "clip"
        kernels = clip_init(self.width, self.depth) if clip else XAVIER
        fields: Mapping[str, Any] = {
            "heads": self.heads,
            "mlp_dim": mlp_dim,
            "dropout": self.dropout,
            "layer_scale": self.layer_scale,
            "qkv_bias": self.qkv_bias,
            "precision": self.precision,
            "attention": self.attention,
            "kernels": kernels,
            "causal": self.causal,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "post_norm": self.post_norm,
        }
        x, blocks = run_blocks(
            self,
            Block,
            fields,
            out["stem"],
            depth=self.depth,
            scan=self.scan,
            remat=self.remat,
            key=block_key,
            drop_path=self.drop_path,
            tap=tap,
            mask=self._visible(ids, mask),
        )
        pooled = x[:, -1]
        if classed:
            pooled = layer_norm(pooled, self.precision, "norm", self.norm_epsilon)
            x = x[:, :-1]
        elif not self.post_norm:
            x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        x = apply_tap(tap, "tokens", x)
        out |= blocks | {"tokens": x, "mask": mask}
        if self.masked_head:
            out["token_logits"] = apply_tap(
                tap, "token_logits", self._token_logits(x, positions, table)
            )
        if self.pool == "first":
            pooled = x[:, 0]
        elif self.pool in ("last", "argmax"):
            last = jnp.maximum(jnp.sum(mask, 1) - 1, 0)
            at = last if self.pool == "last" else jnp.argmax(ids, 1)
            pooled = jnp.take_along_axis(x, at[:, None, None], 1)[:, 0]
        elif self.pool == "mean":
            pooled = mean_over(x, mask)
        elif self.pool == "map":
            head = MAPHead(
                self.heads,
                mlp_dim,
                self.precision,
                self.attention,
                self.activation,
                self.norm_epsilon,
                name="map_pool",
            )
            pooled = head(x, mask)
        if self.pooler:
            small = nn.initializers.normal(0.02)
            pooled = jnp.tanh(dense(pooled, self.width, self.precision, "pooler", small))
        return end(pooled, out, tap, self.precision)

    @nn.nowrap
    def _visible(self, ids: jax.Array, mask: jax.Array) -> jax.Array | None:
        """The tokens that can be attended to; None for all."""
        if self.pool == "class":
            # open_clip puts the class token's place first, where it stands last: token i is hidden
            # where the one before it is padding.
            first = jnp.ones((len(ids), 1), bool)
            return jnp.concatenate([first, ids != self.pad_id], 1)
        return None if self.causal or self.pad_id is None else mask

    @nn.nowrap
    def _segments(self, segment_ids: jax.Array | None) -> jax.Array:
        """Vectors (B, T, D), or (D,) where all tokens belong to the first segment."""
        shape = (self.segments, self.width)
        init = nn.initializers.normal(0.02)
        vectors = self.param("segment_embed", init, shape, self.precision.params)
        return vectors[0] if segment_ids is None else vectors[segment_ids]

    @nn.nowrap
    def _token_logits(
        self, x: jax.Array, positions: jax.Array | None, table: nn.Embed
    ) -> jax.Array:
        """Logits of the tokens at ``positions``, in the output dtype."""
        if positions is not None:
            x = jnp.take_along_axis(x, positions[:, :, None], 1)
        x = dense(x, self.width, self.precision, "masked_dense", nn.initializers.normal(0.02))
        x = activate(x, self.activation)
        x = layer_norm(x, self.precision, "masked_norm", self.norm_epsilon)
        shape = (self.vocab_size,)
        bias = self.param("masked_bias", nn.initializers.zeros, shape, self.precision.params)
        return constrain_batch(table.attend(x)).astype(self.precision.output) + bias


@checked
class TextCNN(nn.Module):
    """Word vectors, a convolution over them, the maximum over the text, an MLP of two layers.

    Kim, Convolutional Neural Networks for Sentence Classification, 2014. ``stem`` is (B, T, E),
    ``tokens`` (B, T, filters x kernels) after the ReLU. Padding is zero, and its amount does not
    change the result.

    Attributes:
      vocab_size: ids are 0..vocab_size - 1; an id beyond gives NaN.
      width: of the embedding.
      word_width: E, of the word vectors.
      kernels: filter sizes in tokens; one convolution for each.
      filters: of every convolution.
      hidden: units between the two layers; None for ``width``.
      pad_id, dropout, precision: as in ``BagOfWords``.
      remat: as in ``ViT``, of the convolutions.
    """

    vocab_size: Positive[int]
    width: Positive[int] = 512
    word_width: Positive[int] = 300
    kernels: Unique[NonEmpty[tuple[Positive[int], ...]]] = (3,)
    filters: Positive[int] = 512
    hidden: Positive[int] | None = None
    pad_id: int | None = 0
    dropout: Rate = 0.0
    precision: Precision = Precision()
    remat: Remat = "none"

    def __post_init__(self) -> None:
        check_pad_id(self.pad_id, self.vocab_size)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, ids: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, Out]:
        check_ids(ids)
        mask = real_tokens(ids, self.pad_id)
        x = embed(ids, self.vocab_size, self.word_width, self.precision)
        x = apply_tap(tap, "stem", jnp.where(mask[..., None], x, 0))
        out = {"stem": x, "mask": mask}
        convolution = rematerialise(nn.Conv, self.remat)
        features = [
            convolution(
                self.filters,
                (size,),
                padding="SAME",
                dtype=self.precision.compute,
                param_dtype=self.precision.params,
                name=f"convolution{size}",
            )(x)
            for size in self.kernels
        ]
        x = constrain_batch(nn.relu(jnp.concatenate(features, -1)))
        x = out["tokens"] = apply_tap(tap, "tokens", x)
        # After the ReLU nothing is below zero: a text without tokens has the maximum zero.
        x = jnp.max(jnp.where(mask[..., None], x, 0), 1)
        key = self.make_rng("dropout") if train and self.dropout else None
        init = nn.initializers.lecun_normal()
        x = nn.relu(dense(x, self.hidden or self.width, self.precision, "fc1", init))
        x = dropout(x, key, self.dropout)
        pooled = dense(x, self.width, as_output(self.precision), "fc2", init)
        return end(pooled, out, tap, self.precision)


def check_ids(ids: jax.Array, context: int | None = None) -> None:
    """Raises unless ``ids`` can be a batch of texts: integers (B, T), T up to ``context``."""
    if ids.ndim != 2:
        raise ValueError(f"token ids are (batch, tokens), not of shape {ids.shape}")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"token ids are integers, not {ids.dtype}: put ops.Tokenize into the data")
    if context is not None and ids.shape[1] > context:
        raise ValueError(
            f"rows of {ids.shape[1]} tokens do not fit into context={context}; give the tokenizer "
            "this length, or the tower a longer context"
        )


def check_pad_id(pad_id: int | None, vocab_size: int) -> None:
    if pad_id is not None and not 0 <= pad_id < vocab_size:
        raise ValueError(f"pad_id={pad_id}, but it is None or one of 0..{vocab_size - 1}")


def real_tokens(ids: jax.Array, pad_id: int | None) -> jax.Array:
    """(B, T) bool: the tokens up to the last one that is not padding."""
    if pad_id is None:
        return jnp.ones(ids.shape, bool)
    return jnp.flip(jnp.cumsum(jnp.flip(ids != pad_id, 1), 1) > 0, 1)


def token_table(count: int, width: int, precision: Precision) -> nn.Embed:
    """The table ``token_embed`` of the module that calls it."""
    return nn.Embed(
        count,
        width,
        dtype=precision.compute,
        param_dtype=precision.params,
        embedding_init=nn.initializers.normal(0.02),
        name="token_embed",
    )


def embed(ids: jax.Array, count: int, width: int, precision: Precision) -> jax.Array:
    """Rows (B, T, D) of the table of the module that calls it."""
    return constrain_batch(token_table(count, width, precision)(ids))


def sum_over(x: jax.Array, mask: jax.Array) -> jax.Array:
    """(B, D) float32: the sum of (B, T, D) over the tokens in ``mask``."""
    return jnp.sum(x.astype(jnp.float32) * mask[..., None], 1)


def mean_over(x: jax.Array, mask: jax.Array) -> jax.Array:
    """(B, D) float32: the mean over the tokens in ``mask``; zero without any."""
    return sum_over(x, mask) / jnp.maximum(jnp.sum(mask, 1, keepdims=True), 1)


def end(
    pooled: jax.Array, out: Out, tap: Tap | None, precision: Precision
) -> tuple[jax.Array, Out]:
    """Ends a tower: sites ``pooled`` and ``embedding``, of the output dtype."""
    pooled = apply_tap(tap, "pooled", pooled.astype(precision.output))
    embedding = apply_tap(tap, "embedding", pooled)
    return embedding, {**out, "pooled": pooled, "embedding": embedding}
