"""The light decoder of masked autoencoders: from visible tokens to all positions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.layers import as_output, dense, layer_norm
from vision.models.transformer import Block, run_blocks
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

_SMALL = nn.initializers.normal(0.02)


@checked
class MaskedDecoder(nn.Module):
    """He et al., Masked Autoencoders Are Scalable Vision Learners, 2022.

    Called with tokens (B, P + M, D), P of them prefix, and ``places`` int32 (B, M), the positions
    of the others among N = ``size``; the remaining positions get a learned mask token, and so do
    those where ``masked`` bool (B, N) is true, whatever the tower made of them. Returns
    ``(embedding, out)``: ``tokens`` (B, N, width) after the last norm, ``values`` (B, N, outputs),
    ``embedding`` the mean of ``tokens``.

    Attributes:
      outputs: number of outputs per position.
      size: N.
      width, depth, heads: of its blocks.
      precision: number formats.
    """

    outputs: Positive[int]
    size: Positive[int]
    width: Positive[int] = 512
    depth: Positive[int] = 4
    heads: int = 8
    precision: Precision = Precision()

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        places: jax.Array,
        masked: jax.Array,
        *,
        train: bool = False,
        tap: Tap | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        precision, prefix = self.precision, x.shape[1] - places.shape[1]
        x = dense(x, self.width, precision, "embed", nn.initializers.xavier_uniform())
        mask_token = self.param("mask_token", _SMALL, (1, 1, self.width), precision.params)
        position = self.param("pos_embed", _SMALL, (1, self.size, self.width), precision.params)
        blank = jnp.broadcast_to(mask_token.astype(x.dtype), (len(x), self.size, self.width))
        tokens = blank.at[jnp.arange(len(x))[:, None], places].set(x[:, prefix:])
        tokens = jnp.where(masked[..., None], blank, tokens)
        tokens = tokens + position.astype(x.dtype)
        x = jnp.concatenate([x[:, :prefix], tokens], axis=1)
        out = {"stem": apply_tap(tap, "stem", x)}
        fields = {
            "heads": self.heads,
            "mlp_dim": 4 * self.width,
            "dropout": 0.0,
            "layer_scale": None,
            "qkv_bias": True,
            "precision": precision,
            "attention": None,
        }
        x, blocks = run_blocks(
            self, Block, fields, out["stem"], depth=self.depth, scan=True, remat="none", tap=tap
        )
        x = layer_norm(x[:, prefix:], precision, "norm")
        out |= blocks | {"tokens": apply_tap(tap, "tokens", x)}
        values = dense(out["tokens"], self.outputs, as_output(precision), "values", _SMALL)
        out["values"] = apply_tap(tap, "values", values)
        embedding = out["tokens"].mean(1, dtype=jnp.float32).astype(precision.output)
        out["embedding"] = apply_tap(tap, "embedding", embedding)
        return out["embedding"], out
