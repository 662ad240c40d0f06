"""A vision transformer for images of any shape, each cut into patches beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.attention import Attend
from vision.models.layers import Activation, Remat, classify, dropout, layer_norm
from vision.models.patches import embed_patches
from vision.models.transformer import Block, MAPHead, run_blocks
from vision.models.vit import ViT
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above


def resampled_positions(
    pos: jax.Array, index: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Learned positions at the places of patches on grids of other sizes.

    Bilinear and antialiased, as torch's ``interpolate(mode="bilinear", antialias=True)``.

    Args:
      pos: (r, c, D) positions of the grid that they were trained on.
      index: (N,) numbers of patches, row by row.
      rows, columns: (B,) sizes of the images' grids.

    Returns:
      (B, N, D) float32; those of patches beyond the grid are of no use.
    """
    place = index // columns[:, None], index % columns[:, None]
    across = (
        _weights(at, count[:, None], length)
        for at, count, length in zip(place, (rows, columns), pos.shape[:2], strict=True)
    )
    return jnp.einsum("bnr,bnc,rcd->bnd", *across, pos.astype(jnp.float32))


def _weights(place: jax.Array, count: jax.Array, length: int) -> jax.Array:
    """(B, N, length): what each of ``length`` samples gives to sample ``place`` of ``count``."""
    ratio = length / count.astype(jnp.float32)
    centre = (place + 0.5) * ratio - 0.5
    distance = jnp.abs(centre[..., None] - jnp.arange(length)) / jnp.maximum(1, ratio)[..., None]
    weights = jnp.maximum(0, 1 - distance)
    return weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-6)


@checked
class NaflexViT(nn.Module):
    """The image tower of SigLIP2 for native aspect ratios (Tschannen et al., SigLIP 2, 2025).

    Called with (B, N, h * w * C + 2) floating-point patches it returns ``(embedding, out)`` as
    documented in ``vision.train.tower``, without ``map``. ``ops.ResizeToPatches`` and
    ``ops.Patchify`` make them: an image is resized to as many whole patches as there is room for,
    and patches of zeros fill the rest, to which no token attends. The last two numbers of every
    patch are the rows and columns of its image's grid.

    Its parameters are those of a ``ViT`` with ``pool="map"``, whose images have the sides of
    ``grid``; for images of one size that one is cheaper.

    Attributes:
      width: number of channels D of the tokens.
      depth: number of blocks.
      mlp_dim: hidden width of the MLPs; None for 4 D.
      heads: of the attention; their number divides D.
      patch: sides of a patch in pixels.
      grid: rows and columns of the learned positions.
      num_classes: classes of the head; None and 0 both mean no head.
      scan: the blocks are one scan over stacked parameters.
      remat: what a block keeps for the backward pass; see ``ViT``.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      dropout: after the stem, the attention projection, and both layers of the MLP.
      activation: of the MLPs.
      norm_epsilon: added to the variances of all LayerNorms.
      precision: number formats of parameters, computation and outputs.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
      attention: implementation of ``jax.nn.dot_product_attention``; None leaves it to JAX.
    """

    width: Positive[int] = 768
    depth: Positive[int] = 12
    mlp_dim: Positive[int] | None = None
    heads: Positive[int] = 12
    patch: Positive[int] = 16
    grid: tuple[Positive[int], Positive[int]] = (16, 16)
    num_classes: NonNegative[int] | None = None
    scan: bool = True
    remat: Remat = "none"
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    activation: Activation = "gelu_tanh"
    norm_epsilon: Positive[float] = 1e-6
    precision: Precision = Precision()
    head_zero_init: bool = True
    attention: Attend | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} do not divide the width {self.width}")
        super().__post_init__()

    @nn.nowrap
    def as_vit(self) -> ViT:
        """The ``ViT`` with the same parameters, for images with the sides of ``grid``."""
        return ViT(
            width=self.width,
            depth=self.depth,
            mlp_dim=self.mlp_dim or 4 * self.width,
            heads=self.heads,
            patch=self.patch,
            num_classes=self.num_classes,
            pool="map",
            scan=self.scan,
            activation=self.activation,
            norm_epsilon=self.norm_epsilon,
        )

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], self.depth, ("patch_embed", "pos_embed"))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        area = self.patch**2
        if x.ndim != 3 or (x.shape[-1] - 2) % area or x.shape[-1] < area + 2:
            raise ValueError(
                f"a NaflexViT reads patches (batch, number, {area} x channels + 2), which "
                f"ops.ResizeToPatches and ops.Patchify make, not an array of shape {x.shape}"
            )
        batch, count, _ = x.shape
        mlp_dim = self.mlp_dim or 4 * self.width
        key = self.make_rng("dropout") if train and (self.dropout or self.drop_path) else None
        stem_key, block_key = (None, None) if key is None else jax.random.split(key)
        rows, columns = (x[:, 0, i].astype(jnp.int32) for i in (-2, -1))
        index = jnp.arange(count)
        mask = index < (rows * columns)[:, None]

        pixels = x[..., :-2].reshape(batch * count, self.patch, self.patch, -1)
        x = embed_patches(pixels, self.width, self.patch, self.precision)
        x = x.reshape(batch, count, self.width)
        init = nn.initializers.normal(self.width**-0.5)
        pos = self.param("pos_embed", init, (*self.grid, self.width), self.precision.params)
        x = x + resampled_positions(pos, index, rows, columns).astype(x.dtype)
        x = constrain_batch(dropout(x, stem_key, self.dropout))
        out = {"stem": apply_tap(tap, "stem", x)}
        fields: Mapping[str, Any] = {
            "heads": self.heads,
            "mlp_dim": mlp_dim,
            "dropout": self.dropout,
            "layer_scale": None,
            "qkv_bias": True,
            "precision": self.precision,
            "attention": self.attention,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
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
            mask=mask,
        )
        x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        x = blocks["tokens"] = apply_tap(tap, "tokens", x)
        head = MAPHead(
            self.heads,
            mlp_dim,
            self.precision,
            self.attention,
            self.activation,
            self.norm_epsilon,
            name="map_pool",
        )
        pooled = head(x, mask).astype(self.precision.output)
        pooled = blocks["pooled"] = apply_tap(tap, "pooled", pooled)
        zero_init = self.head_zero_init
        return classify(pooled, {**out, **blocks}, tap, self.num_classes, zero_init, self.precision)
