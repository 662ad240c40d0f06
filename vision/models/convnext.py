"""ConvNeXt and ConvNeXt V2, atto to huge and free sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked, one_of
from vision.models.conv_layers import conv
from vision.models.layers import (
    MLP_TENSOR_PARALLEL,
    Initializer,
    LayerScale,
    Mlp,
    Remat,
    activate,
    as_output,
    block_keys,
    check_images,
    classify,
    dense,
    drop_path,
    drop_path_rates,
    layer_norm,
    pooled_map,
    rematerialise,
    spatial_sites,
)
from vision.parallel.mesh import ShardingRule, constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above

# name: depths, dims. Liu et al. 2022 from tiny to xlarge; the others Woo et al. (V2), 2023.
VARIANTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
# Tensor parallelism in the MLPs, where nearly all parameters are; the rest is split over fsdp.
TENSOR_PARALLEL = (*MLP_TENSOR_PARALLEL, ShardingRule(r".*", "fsdp"))
_INIT = nn.initializers.truncated_normal(0.02)


class GlobalResponse(nn.Module):
    """x + gamma x n(x) + beta: contrast between channels (Woo et al., ConvNeXt V2, 2023).

    ``n`` is a channel's norm over all positions of an image, divided by the mean of these norms
    over channels. Float32 inside; zero ``gamma`` and ``beta``, as at the start, are the identity.

    Attributes:
      precision: number formats.
    """

    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros, shape = nn.initializers.zeros, (x.shape[-1],)
        gamma = self.param("gamma", zeros, shape, self.precision.params)
        beta = self.param("beta", zeros, shape, self.precision.params)
        square = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The square root of a channel that is zero everywhere has no finite gradient.
        some = square > 0
        norm = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)
        relative = norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)
        return x + (gamma * (x * relative) + beta).astype(x.dtype)


class ResponseMlp(nn.Module):
    """``Mlp`` with ``GlobalResponse`` after its activation.

    Attributes:
      hidden: width of the middle.
      kernel_init: of both kernels.
      precision: number formats.
    """

    hidden: int
    kernel_init: Initializer
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = dense(x, self.hidden, self.precision, "fc1", self.kernel_init, tensor=-1)
        x = GlobalResponse(self.precision, name="grn")(activate(x, "gelu"))
        return dense(x, width, self.precision, "fc2", self.kernel_init)


class ConvNeXtBlock(nn.Module):
    """x + layer_scale(mlp(norm(7x7 depthwise convolution(x)))).

    Attributes:
      layer_scale: initial factor of the branch; None for none.
      precision: number formats.
      grn: whether the MLP has ``GlobalResponse``.
      norm_epsilon: of LayerNorm.
    """

    layer_scale: float | None
    precision: Precision
    grn: bool = False
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None, rate: jax.Array | None) -> jax.Array:
        channels = x.shape[-1]
        y = conv(
            channels,
            7,
            groups=channels,
            use_bias=True,
            precision=self.precision,
            name="conv_dw",
            kernel_init=_INIT,
        )(x)
        y = layer_norm(constrain_batch(y), self.precision, "norm", self.norm_epsilon)
        mlp = ResponseMlp if self.grn else Mlp
        y = mlp(4 * channels, _INIT, self.precision, name="mlp")(y)
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, self.precision, name="ls")(y)
        return x + drop_path(y, key, rate)


@checked
class ConvNeXt(nn.Module):
    """ConvNeXt (Liu et al., A ConvNet for the 2020s, 2022), with the exact (erf) GELU.

    V2 (Woo et al., 2023) is ``grn=True, layer_scale=None``.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block17`` for
    tiny. ``tokens`` is the last block's output with its positions flattened, ``map`` the same as
    (B, h, w, C), and ``embedding`` is ``pooled`` after the final norm. ``pooled``, ``embedding``
    and ``logits`` are of the output dtype, everything else is of the compute dtype.

    Attributes:
      variant: sizes, one of ``VARIANTS``.
      depths: blocks of each stage; overrides the variant, or stands without one.
      dims: channels of each stage, as many as depths; likewise.
      num_classes: classes of the head; None and 0 both mean no head.
      stem_stride: side of the patches of the stem; 1 or 2 suit images of about 32 px. Each stage
        after the first halves the resolution again.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      layer_scale: initial value of a learned factor on every branch; None for none.
      grn: global response normalisation in the MLPs.
      norm_epsilon: of LayerNorm; 1e-5 in timm's convnext_xxlarge.
      final_epsilon: of the LayerNorm behind pooling; None: the same. transformers has 1e-12.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of convolutions and of products with parameters.
      precision: number formats of parameters, computation and outputs.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    variant: Annotated[str, one_of(VARIANTS)] | None = None
    depths: NonEmpty[tuple[Positive[int], ...]] | None = None
    dims: NonEmpty[tuple[Positive[int], ...]] | None = None
    num_classes: NonNegative[int] | None = None
    stem_stride: Positive[int] = 4
    drop_path: Rate = 0.0
    layer_scale: float | None = 1e-6
    grn: bool = False
    norm_epsilon: Positive[float] = 1e-6
    final_epsilon: Positive[float] | None = None
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        self.resolved()
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Depths and dims that the variant and the fields amount to."""
        if self.variant is None and (self.depths is None or self.dims is None):
            raise ValueError(
                "ConvNeXt without a variant needs depths and dims; or set variant to one of "
                f"{', '.join(VARIANTS)}"
            )
        depths, dims = VARIANTS.get(self.variant or "", ((), ()))
        depths = depths if self.depths is None else self.depths
        dims = dims if self.dims is None else self.dims
        if len(depths) != len(dims):
            raise ValueError(f"depths={depths} and dims={dims}, but they are of one length")
        return depths, dims

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depths = self.resolved()[0]
        between = {f"downsample{i}_": sum(depths[:i]) for i in range(1, len(depths))}
        return chain_layers_above(path[0], sum(depths), ("stem_",), between)

    @nn.nowrap
    def before_stage(self, stage: int, x: jax.Array) -> jax.Array:
        """What the blocks of a stage, from 0, are given: a tower that extends this one may put
        layers of its own here."""
        return x

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        depths, dims = self.resolved()
        total = self.stem_stride * 2 ** (len(depths) - 1)
        if min(x.shape[1:3]) < total:
            raise ValueError(
                f"image of {x.shape[1]}x{x.shape[2]} is smaller than the total stride {total}: "
                f"resize the images or lower stem_stride={self.stem_stride}"
            )
        keys = block_keys(self, self.drop_path, sum(depths), train)
        rates = drop_path_rates(self.drop_path, sum(depths))

        def reduce(x: jax.Array, channels: int, stride: int, name: str) -> jax.Array:
            layer = conv(
                channels,
                stride,
                stride,
                padding="VALID",
                use_bias=True,
                precision=self.precision,
                name=name,
                kernel_init=_INIT,
            )
            return constrain_batch(layer(x))

        x = reduce(x, dims[0], self.stem_stride, "stem_conv")
        x = layer_norm(x, self.precision, "stem_norm", self.norm_epsilon)
        x = apply_tap(tap, "stem", x)
        out = {"stem": x}
        block_type = rematerialise(ConvNeXtBlock, self.remat)
        i = 0
        for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True)):
            if stage > 0:
                x = layer_norm(x, self.precision, f"downsample{stage}_norm", self.norm_epsilon)
                x = reduce(x, channels, 2, f"downsample{stage}_conv")
            x = self.before_stage(stage, x)
            for _ in range(depth):
                site = f"block{i:02d}"
                block = block_type(
                    self.layer_scale, self.precision, self.grn, self.norm_epsilon, name=site
                )
                x = apply_tap(tap, site, constrain_batch(block(x, keys[i], rates[i])))
                out[site] = x
                i += 1

        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        embedding = layer_norm(
            pooled, as_output(self.precision), "norm", self.final_epsilon or self.norm_epsilon
        )
        return classify(embedding, out, tap, self.num_classes, self.head_zero_init, self.precision)
