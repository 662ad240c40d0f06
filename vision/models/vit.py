"""Vision transformer: variants and free sizes, scanned blocks, positions, pooling, taps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.attention import Attend
from vision.models.layers import (
    MLP_TENSOR_PARALLEL,
    Remat,
    check_images,
    classify,
    dropout,
    layer_norm,
)
from vision.models.patches import embed_patches, spatial_tokens
from vision.models.posemb import Grid, resample_posemb, sincos2d
from vision.models.query_pool import QueryPool
from vision.models.transformer import Block, MAPHead, MlpKind, layer_of, run_blocks
from vision.parallel.mesh import ShardingRule, constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, Tree, apply_tap, chain_layers_above

Pool = Literal["cls", "mean", "map", "cls_mean", "queries"]
Posemb = Literal["learned", "sincos2d"]

# Tensor parallelism as in Megatron-LM (Shoeybi et al., 2019): two sums over tensor per block and
# pass. What is left is split over fsdp, where the mesh has that axis.
TENSOR_PARALLEL = (
    ShardingRule(r"attn/qkv/kernel", ("fsdp", "tensor")),
    ShardingRule(r"attn/qkv/bias", ("tensor",)),
    ShardingRule(r"attn/proj/kernel", ("tensor", "fsdp")),
    *MLP_TENSOR_PARALLEL,
    ShardingRule(r".*", "fsdp"),
)


class Size(NamedTuple):
    width: int
    depth: int
    mlp_dim: int
    heads: int
    patch: int


# name: width, depth, mlp_dim, heads. Touvron et al. (DeiT) 2021 for Ti and S, Dosovitskiy et al.
# 2021 for B, L and H, Zhai et al. (Scaling Vision Transformers) 2022 for g.
SIZES: Mapping[str, tuple[int, int, int, int]] = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
}
VARIANTS = ("Ti/16", "S/16", "S/32", "B/16", "B/32", "L/16", "H/14", "g/14")


def resolve_size(
    variant: str | None,
    width: int | None = None,
    depth: int | None = None,
    mlp_dim: int | None = None,
    heads: int | None = None,
    patch: int | None = None,
) -> Size:
    """The sizes of a ViT: those of ``variant``, each replaced by the argument that is given.

    Without a variant, ``mlp_dim`` is by default four times the width, and the others must be
    given.

    Raises:
      ValueError: unknown variant, a size missing, or heads that do not divide the
        width.
    """
    known = f"{', '.join(VARIANTS)} (or another patch size after the slash)"
    free = {"width": width, "depth": depth, "mlp_dim": mlp_dim, "heads": heads, "patch": patch}
    sizes: dict[str, int | None] = dict.fromkeys(free)
    if variant is not None:
        name, _, digits = variant.partition("/")
        if name not in SIZES or not digits.isdecimal() or int(digits) == 0:
            raise ValueError(f"variant={variant!r}, but it is one of {known}")
        sizes = dict(zip(Size._fields, (*SIZES[name], int(digits)), strict=True))
    sizes.update({key: value for key, value in free.items() if value is not None})
    if sizes["mlp_dim"] is None and sizes["width"] is not None:
        sizes["mlp_dim"] = 4 * sizes["width"]
    missing = [key for key, value in sizes.items() if value is None and key != "mlp_dim"]
    if missing:
        raise ValueError(
            f"ViT without a variant needs {', '.join(missing)}; or set variant to one of {known}"
        )
    size = Size(**{key: value for key, value in sizes.items() if value is not None})
    if size.width % size.heads:
        raise ValueError(f"heads={size.heads} does not divide width={size.width}")
    return size


@checked
class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al., 2021) with pre-norm blocks.

    Called with (B, h, w, C) floating-point images whose sides are multiples of the patch, it
    returns ``(embedding, out)`` as documented in ``vision.train.tower``. ``stem`` is (B, N, D):
    patches with their positions, after the prefix: class token, if there is one, and registers.
    ``blockNN/attn`` and ``blockNN/mlp`` are the residual branches, after layer scale and stochastic
    depth. ``tokens`` is edited before ``map``; mean and MAP pooling read ``map``, so editing
    ``map`` changes the logits with these, but not with a class token. If a tap changes the number
    of patch tokens there is no ``map``, and pooling reads the remaining tokens. ``pooled``,
    ``embedding`` and ``logits`` are of the output dtype, attention weights float32, everything else
    is of the compute dtype.

    Attributes:
      variant: size and patch, such as ``S/16``: see ``VARIANTS``.
      width, depth, mlp_dim, heads, patch: override the variant, or stand without one.
      num_classes: classes of the head; None and 0 both mean no head.
      pool: class token, mean over patches, multi-head attention pooling over patches, or class
        token and mean after one another (``cls_mean``), as DINOv2's linear classifiers read, or the
        first of ``queries`` learned ones that attend to all tokens, as in open_clip's CoCa; the
        last LayerNorm is then after it, and ``out`` has all of them as ``queries``.
      queries, query_width, query_heads: of pool="queries": their number, the width of what they
        give (None for that of the tower) and the heads of their attention.
      class_token: whether there is one; None: only if ``pool`` reads it.
      class_position: the class token has a learned position too, ``cls_pos_embed``; it only
        matters to weights that are read or written in another library's naming.
      registers: further learned tokens that nothing reads (Darcet et al., Vision Transformers
        Need Registers, 2024).
      register_positions: they have learned positions, ``registers_pos_embed``; as of
        ``class_position``.
      posemb: ``learned``: a parameter (rows, columns, D) for the grid at initialisation, which is
        resampled (bicubic, antialiased) for images of other sizes; ``sincos2d``: fixed.
      scan: blocks are one scan over stacked parameters ``blocks``, with a leading axis of
        length depth; compiles faster. Otherwise they are ``block00`` and so on. A tap that
        matches a site of any block runs the stacked blocks one by one.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of products with parameters.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      dropout: after the stem, the attention projection, and both layers of the MLP.
      layer_scale: initial value of a learned factor on every branch; None for none.
      qkv_bias: whether q, k and v have biases.
      activation: of the MLPs: ``gelu`` is exact (erf); ``swiglu`` has ``mlp_dim`` gated units.
      pre_norm: a LayerNorm ``norm_pre`` before the first block, and patches without a bias, as
        in CLIP (Radford et al., 2021).
      norm_pooled: the last LayerNorm follows pooling, as ``fc_norm``; ``tokens`` and ``map`` are
        the last block's output.
      norm_epsilon: added to the variances of all LayerNorms.
      precision: number formats of parameters, computation and outputs.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
      attention: implementation of ``jax.nn.dot_product_attention``; None leaves it to JAX.
        ``cudnn`` is the fused kernel on NVIDIA GPUs; it computes in 16 bits.
    """

    variant: str | None = None
    width: Positive[int] | None = None
    depth: Positive[int] | None = None
    mlp_dim: Positive[int] | None = None
    heads: Positive[int] | None = None
    patch: Positive[int] | None = None
    num_classes: NonNegative[int] | None = None
    pool: Pool = "cls"
    queries: Positive[int] = 256
    query_width: Positive[int] | None = None
    query_heads: Positive[int] = 8
    class_token: bool | None = None
    class_position: bool = False
    registers: NonNegative[int] = 0
    register_positions: bool = False
    posemb: Posemb = "learned"
    scan: bool = True
    remat: Remat = "none"
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    layer_scale: float | None = None
    qkv_bias: bool = True
    activation: MlpKind = "gelu"
    pre_norm: bool = False
    norm_pooled: bool = False
    norm_epsilon: Positive[float] = 1e-6
    precision: Precision = Precision()
    head_zero_init: bool = True
    attention: Attend | None = None

    def __post_init__(self) -> None:
        size = self.resolved()
        if self.pool == "queries" and (self.query_width or size.width) % self.query_heads:
            raise ValueError(f"query_heads={self.query_heads} does not divide the queries' width")
        if self.pool == "queries" and not self.norm_pooled:
            raise ValueError("pool='queries' has the last LayerNorm after it: norm_pooled=True")
        reads_class = self.pool in ("cls", "cls_mean")
        if reads_class and self.class_token is False:
            raise ValueError(f"pool={self.pool!r} reads the class token: class_token is not False")
        if self.pool == "cls_mean" and self.norm_pooled:
            raise ValueError("pool='cls_mean' has the last LayerNorm before it: norm_pooled=False")
        if self.class_position and not self.has_class_token():
            raise ValueError("class_position=True needs class_token=True")
        if self.register_positions and not self.registers:
            raise ValueError("register_positions=True needs registers")
        if self.pool == "map" and self.activation == "swiglu":
            raise ValueError("pool='map' has an MLP without gates: activation is not 'swiglu'")
        if self.posemb == "sincos2d" and size.width % 4:
            raise ValueError(f"posemb='sincos2d' needs a width divisible by 4, not {size.width}")
        if self.attention == "cudnn" and self.precision.compute == "float32":
            raise ValueError("attention='cudnn' needs precision.compute='bfloat16' or 'float16'")
        if self.attention is not None and self.precision.attention_logits != "float32":
            raise ValueError(
                f"attention={self.attention!r} needs precision.attention_logits='float32'"
            )
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> Size:
        """The sizes that the variant and the fields amount to."""
        return resolve_size(
            self.variant, self.width, self.depth, self.mlp_dim, self.heads, self.patch
        )

    @nn.nowrap
    def has_class_token(self) -> bool:
        """Whether there is a class token."""
        if self.class_token is None:
            return self.pool in ("cls", "cls_mean")
        return self.class_token

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        stem = ("patch_embed", "pos_embed", "cls_", "registers", "norm_pre")
        return chain_layers_above(path[0], self.resolved().depth, stem)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        size = self.resolved()
        key = self.make_rng("dropout") if train and (self.dropout or self.drop_path) else None
        stem_key, block_key = (None, None) if key is None else jax.random.split(key)

        x, grid = self._embed(x, size)
        x = constrain_batch(dropout(x, stem_key, self.dropout))
        out = {"stem": apply_tap(tap, "stem", x)}
        x = out["stem"]
        if self.pre_norm:
            x = layer_norm(x, self.precision, "norm_pre", self.norm_epsilon)
        x, out = self._blocks(x, out, size, block_key, tap)
        if not self.norm_pooled:
            x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        x = out["tokens"] = apply_tap(tap, "tokens", x)

        prefix = self.has_class_token() + self.registers
        patches = spatial_tokens(x, prefix, grid, out, tap)
        if self.pool == "cls":
            pooled = x[:, 0]
        elif self.pool == "mean":
            pooled = patches.mean(axis=1, dtype=jnp.float32)
        elif self.pool == "cls_mean":
            mean = patches.mean(axis=1, dtype=jnp.float32)
            pooled = jnp.concatenate([x[:, 0].astype(jnp.float32), mean], -1)
        elif self.pool == "queries":
            pooled = QueryPool(
                self.queries,
                self.query_width or size.width,
                self.query_heads,
                self.norm_epsilon,
                self.precision,
                self.attention,
                name="query_pool",
            )(x)
        else:
            activation = self.activation
            assert activation != "swiglu"
            head = MAPHead(
                size.heads,
                size.mlp_dim,
                self.precision,
                self.attention,
                activation,
                self.norm_epsilon,
                name="map_pool",
            )
            pooled = head(patches)
        if self.norm_pooled:
            pooled = layer_norm(pooled, self.precision, "fc_norm", self.norm_epsilon)
        if self.pool == "queries":
            out["queries"] = pooled = apply_tap(tap, "queries", pooled)
            pooled = pooled[:, 0]
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled.astype(self.precision.output))
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)

    @nn.nowrap
    def _embed(self, x: jax.Array, size: Size) -> tuple[jax.Array, Grid]:
        x = embed_patches(x, size.width, size.patch, self.precision, not self.pre_norm)
        batch, rows, columns, _ = x.shape
        grid = (rows, columns)
        x = (x + self._positions(grid, size.width).astype(x.dtype)).reshape(batch, -1, size.width)
        if prefix := self._prefix(size.width):
            tokens = jnp.concatenate(prefix, axis=1)
            tokens = jnp.broadcast_to(tokens, (batch, *tokens.shape[1:])).astype(x.dtype)
            x = jnp.concatenate([tokens, x], axis=1)
        return x, grid

    @nn.nowrap
    def _prefix(self, width: int) -> list[jax.Array]:
        small, dtype = nn.initializers.normal(0.02), self.precision.params
        prefix = []
        if self.has_class_token():
            cls = self.param("cls_token", nn.initializers.zeros, (1, 1, width), dtype)
            if self.class_position:
                cls = cls + self.param("cls_pos_embed", small, (1, 1, width), dtype)
            prefix.append(cls)
        if self.registers:
            shape = (1, self.registers, width)
            registers = self.param("registers", small, shape, dtype)
            if self.register_positions:
                registers = registers + self.param("registers_pos_embed", small, shape, dtype)
            prefix.append(registers)
        return prefix

    @nn.nowrap
    def _positions(self, grid: Grid, width: int) -> jax.Array:
        if self.posemb == "sincos2d":
            return jnp.asarray(sincos2d(grid, width))
        if not self.has_variable("params", "pos_embed"):
            init = nn.initializers.normal(width**-0.5)
            return self.param("pos_embed", init, (*grid, width), self.precision.params)
        pos = self.get_variable("params", "pos_embed")
        return resample_posemb(pos, pos.shape[:2], grid)

    @nn.nowrap
    def _blocks(
        self,
        x: jax.Array,
        out: dict[str, jax.Array],
        size: Size,
        key: jax.Array | None,
        tap: Tap | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        fields: Mapping[str, Any] = {
            "heads": size.heads,
            "mlp_dim": size.mlp_dim,
            "dropout": self.dropout,
            "layer_scale": self.layer_scale,
            "qkv_bias": self.qkv_bias,
            "precision": self.precision,
            "attention": self.attention,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
        }
        x, blocks = run_blocks(
            self,
            Block,
            fields,
            x,
            depth=size.depth,
            scan=self.scan,
            remat=self.remat,
            key=key,
            drop_path=self.drop_path,
            tap=tap,
        )
        return x, out | blocks


def unstack_blocks(params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Parameters of ``ViT(scan=True)`` as ``ViT(scan=False)`` names them."""
    params = dict(params)
    stacked = params.pop("blocks")
    depth = len(jax.tree.leaves(stacked)[0])
    return params | {f"block{i:02d}": layer_of(stacked, i) for i in range(depth)}


def stack_blocks(params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Parameters of ``ViT(scan=False)`` as ``ViT(scan=True)`` names them."""
    names = sorted((n for n in params if re.fullmatch(r"block\d+", n)), key=lambda n: int(n[5:]))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names))
    return {k: v for k, v in params.items() if k not in names} | {"blocks": stacked}
