"""Swin transformer: attention in windows, shifted in every second block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import NonEmpty, NonNegative, Positive, Rate, checked, one_of
from vision.models.attention import attention_logits, softmax_mean, weighted_mean
from vision.models.convolution import convolve
from vision.models.layers import (
    Mlp,
    Remat,
    block_keys,
    check_images,
    classify,
    dense,
    drop_path,
    drop_path_rates,
    layer_norm,
    pooled_map,
    query_key_value,
    rematerialise,
    spatial_sites,
)
from vision.models.relative_bias import bias_of, offset_rows, resampled_table
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above, wants

Pair = tuple[int, int]

# name: width, depths, heads. Liu et al. 2021.
VARIANTS: Mapping[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_INIT = nn.initializers.truncated_normal(0.02)
_EPSILON = 1e-5


class StagePlan(NamedTuple):
    """One stage: channels, number of blocks, heads, side of the windows in tokens."""

    width: int
    depth: int
    heads: int
    window: int


def shift_mask(size: Pair, window: Pair, shift: Pair) -> np.ndarray:
    """(windows, N, N) bool: which tokens of a shifted window attend to each other.

    After ``size`` tokens were rolled by ``shift``, the windows at the end hold tokens from
    opposite sides of the image; those do not.
    """

    def region(n: int, w: int, s: int) -> np.ndarray:
        index = np.arange(n)
        return (index >= n - w).astype(int) + (index >= n - s) if s else np.zeros(n, int)

    rows, columns = (region(*axis) for axis in zip(size, window, shift, strict=True))
    regions = to_windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0, :, :, 0]
    return regions[:, :, None] == regions[:, None]


def to_windows(x: Any, window: Pair) -> Any:
    """(B, h, w, C) to (B, windows, N, C); the window's sides divide h and w."""
    (batch, height, width, channels), (a, b) = x.shape, window
    x = x.reshape(batch, height // a, a, width // b, b, channels).swapaxes(2, 3)
    return x.reshape(batch, -1, a * b, channels)


def from_windows(x: jax.Array, window: Pair, size: Pair) -> jax.Array:
    """Undoes ``to_windows`` of an image of that size."""
    (height, width), (a, b) = size, window
    x = x.reshape(x.shape[0], height // a, width // b, a, b, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(x.shape[0], height, width, x.shape[-1])


def padded(x: jax.Array, multiple: Pair) -> jax.Array:
    """Zeros below and to the right, to the next multiple."""
    down, right = (-n % m for n, m in zip(x.shape[1:3], multiple, strict=True))
    return jnp.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))


def neighbours(x: jax.Array) -> jax.Array:
    """(B, h, w, C) to (B, ceil(h / 2), ceil(w / 2), 4 C): squares of four tokens, zeros outside."""
    x = padded(x, (2, 2))
    batch, height, columns, channels = x.shape
    x = x.reshape(batch, height // 2, 2, columns // 2, 2, channels)
    # Column by column: both rows of the first column, then those of the second.
    return x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, columns // 2, 4 * channels)


class WindowAttention(nn.Module):
    """Self-attention within each window, with a learned bias per head and relative position.

    The columns of ``qkv`` are in the order of ``vision.models.transformer.Attention``.

    Attributes:
      heads: of the attention.
      side: of the windows, in tokens, that the table of biases is of; it is resampled to others.
      precision: number formats.
    """

    heads: int
    side: int
    precision: Precision

    @nn.compact
    def __call__(
        self, x: jax.Array, window: Pair, mask: np.ndarray | None, tap: Tap | None, site: str
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(B, windows, N, C), and the attention weights (B, windows, heads, N, N) if tapped."""
        width = x.shape[-1]
        q, k, v = query_key_value(x, self.heads, self.precision, _INIT)
        table = self.param(
            "bias_table", _INIT, ((2 * self.side - 1) ** 2, self.heads), self.precision.params
        )
        table = resampled_table(table, (self.side, self.side), window)
        bias = bias_of(table, offset_rows(window, window))
        logits = attention_logits(q, k, self.precision.attention_logits)
        logits = logits * q.shape[-1] ** -0.5 + bias
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
        out = {}
        if wants(tap, site):
            out["attention"] = apply_tap(tap, site, jax.nn.softmax(logits, axis=-1))
            x = weighted_mean(out["attention"], v)
        else:
            x = softmax_mean(logits, v)
        x = constrain_batch(x, tensor=3).reshape(*x.shape[:3], width)
        return dense(x, width, self.precision, "proj", _INIT), out


def in_windows(
    attention: nn.Module, y: jax.Array, side: int, shifted: bool, tap: Tap | None, site: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Attention of (B, h, w, C) in windows, perhaps shifted by half of their side."""
    height, width = y.shape[1:3]
    # No window is larger than the image, and an image of one window need not be shifted.
    window = (min(height, side), min(width, side))
    shift = (
        side // 2 if shifted and height > side else 0,
        side // 2 if shifted and width > side else 0,
    )
    y = jnp.roll(y, (-shift[0], -shift[1]), (1, 2)) if any(shift) else y
    # Padding comes after the roll and takes part in attention, as in the weights' training.
    y = padded(y, window)
    size = (y.shape[1], y.shape[2])
    mask = shift_mask(size, window, shift) if any(shift) else None
    y, out = attention(to_windows(y, window), window, mask, tap, site)
    y = from_windows(y, window, size)[:, :height, :width]
    return (jnp.roll(y, shift, (1, 2)) if any(shift) else y), out


def in_fixed_windows(
    attention: nn.Module, y: jax.Array, side: int, shift: int, tap: Tap | None, site: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The same in windows whose side and shift do not depend on the image, as in transformers:
    padding comes before the shift, and a smaller image is filled up to a window."""
    height, width = y.shape[1:3]
    window = (side, side)
    y = jnp.roll(padded(y, window), (-shift, -shift), (1, 2))
    size = (y.shape[1], y.shape[2])
    mask = shift_mask(size, window, (shift, shift)) if shift else None
    y, out = attention(to_windows(y, window), window, mask, tap, site)
    y = jnp.roll(from_windows(y, window, size), (shift, shift), (1, 2))
    return y[:, :height, :width], out


class SwinBlock(nn.Module):
    """``x + attn(norm1(x))`` in windows, shifted or not, then ``x + mlp(norm2(x))``.

    Returns what ``vision.models.transformer.Block`` returns, for (B, h, w, C).

    Attributes:
      stage: width, heads and window.
      shifted: windows are moved by half their side.
      mlp_ratio: hidden width of the MLP over D.
      precision: number formats.
      trained: one of ``Swin.trained_windows``; 0 for the stage's own.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    stage: StagePlan
    shifted: bool
    mlp_ratio: float
    precision: Precision
    trained: int
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None, rate: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site, side = self.tap, self.site, self.stage.window
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        y = layer_norm(x, self.precision, "norm1", epsilon=_EPSILON)
        attention = WindowAttention(
            self.stage.heads, self.trained or side, self.precision, name="attn"
        )
        y, out = in_windows(attention, y, side, self.shifted, tap, f"{site}/attention")
        out["attn"] = apply_tap(tap, f"{site}/attn", drop_path(y, keys[0], rate))
        x = x + out["attn"]

        y = layer_norm(x, self.precision, "norm2", epsilon=_EPSILON)
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = Mlp(hidden, _INIT, self.precision, name="mlp")(y)
        out["mlp"] = apply_tap(tap, f"{site}/mlp", drop_path(y, keys[1], rate))
        x = out[""] = apply_tap(tap, site, constrain_batch(x + out["mlp"]))
        return x, out


@checked
class Swin(nn.Module):
    """Swin transformer (Liu et al., 2021), with the exact (erf) GELU.

    Called with (B, h, w, C) floating-point images it returns ``(embedding, out)`` as documented in
    ``vision.train.tower``. Blocks count through all stages: ``block00`` to ``block11`` for T.
    ``stem``, the blocks and their two branches are (B, h, w, C), ``blockNN/attention`` is
    (B, windows, heads, N, N); ``map`` is the last block's output after the final norm, ``tokens``
    the same with its positions flattened, and ``embedding`` is ``pooled``. ``pooled``,
    ``embedding`` and ``logits`` are of the output dtype, attention weights float32, everything
    else is of the compute dtype. ``vision.models.vit.TENSOR_PARALLEL`` lays it out over a mesh.

    Images have any size: zeros below and to the right fill them up to a multiple of the patch, and
    the tokens of a stage up to a multiple of the window, where other tokens attend to them, as in
    timm. In that case tokens at opposite sides of the image may attend to each other in shifted
    windows, again as in timm; if windows divide the map, they never do. In a stage with fewer
    tokens than the window, windows are as large as the image, and the bias table is resampled to
    them as timm does when it makes the model for such images.

    Attributes:
      variant: sizes, one of ``VARIANTS``.
      width: channels of the first stage, twice as many in each further one; overrides the
        variant, or stands without one.
      depths: blocks of each stage; likewise.
      heads: heads of each stage, as many as depths; likewise.
      window: side of the windows, in tokens.
      windows: side of each stage's windows, where they differ; overrides ``window``.
      trained_windows: side of each stage's windows in training, where it was another, of which
        the bias tables are; 0 for the stage's own. None: so for all.
      patch: side of the patches of the stem.
      mlp_ratio: of the hidden layer's width to the width.
      num_classes: classes of the head; None and 0 both mean no head.
      drop_path: stochastic depth of the last block; the rate rises linearly from 0 at the first.
      remat: what a block keeps for the backward pass: ``none`` keeps all, ``full`` only its
        input, ``dots`` also the results of products with parameters.
      precision: number formats of parameters, computation and outputs.
      head_zero_init: head's kernel starts at zero, otherwise normal with deviation 0.01.
    """

    variant: Annotated[str, one_of(VARIANTS)] | None = None
    width: Positive[int] | None = None
    depths: NonEmpty[tuple[Positive[int], ...]] | None = None
    heads: NonEmpty[tuple[Positive[int], ...]] | None = None
    window: Positive[int] = 7
    windows: NonEmpty[tuple[Positive[int], ...]] | None = None
    trained_windows: NonEmpty[tuple[NonNegative[int], ...]] | None = None
    patch: Positive[int] = 4
    mlp_ratio: Positive[float] = 4.0
    num_classes: NonNegative[int] | None = None
    drop_path: Rate = 0.0
    remat: Remat = "none"
    precision: Precision = Precision()
    head_zero_init: bool = True

    def __post_init__(self) -> None:
        trained, stages = self.trained_windows, len(self.resolved())
        if trained is not None and len(trained) != stages:
            raise ValueError(f"trained_windows={trained}, but there are {stages} stages")
        super().__post_init__()

    @nn.nowrap
    def resolved(self) -> tuple[StagePlan, ...]:
        """The stages that the variant and the fields amount to."""
        width, depths, heads = self.width, self.depths, self.heads
        if self.variant is not None:
            of_variant = VARIANTS[self.variant]
            width = of_variant[0] if width is None else width
            depths = of_variant[1] if depths is None else depths
            heads = of_variant[2] if heads is None else heads
        if width is None or depths is None or heads is None:
            raise ValueError(
                "Swin without a variant needs width, depths and heads; or set variant to one of "
                f"{', '.join(VARIANTS)}"
            )
        windows = (self.window,) * len(depths) if self.windows is None else self.windows
        if not len(depths) == len(heads) == len(windows):
            raise ValueError(f"{depths=}, {heads=} and {windows=}, but they are of one length")
        stages = [
            StagePlan(width * 2**i, *sizes)
            for i, sizes in enumerate(zip(depths, heads, windows, strict=True))
        ]
        for stage in stages:
            if stage.width % stage.heads:
                raise ValueError(f"{stage.heads} heads do not divide width {stage.width}")
        return tuple(stages)

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        depths = [stage.depth for stage in self.resolved()]
        between = {f"downsample{i}_": sum(depths[:i]) for i in range(1, len(depths))}
        return chain_layers_above(path[0], sum(depths), ("patch_embed", "stem_"), between)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        stages = self.resolved()
        total = sum(stage.depth for stage in stages)
        keys = block_keys(self, self.drop_path, total, train)
        rates = drop_path_rates(self.drop_path, total)

        x = nn.Conv(
            stages[0].width,
            (self.patch, self.patch),
            strides=self.patch,
            padding="VALID",
            dtype=self.precision.compute,
            param_dtype=self.precision.params,
            kernel_init=_INIT,
            conv_general_dilated=convolve,
            name="patch_embed",
        )(padded(x, (self.patch, self.patch)))
        x = layer_norm(constrain_batch(x), self.precision, "stem_norm", epsilon=_EPSILON)
        x = apply_tap(tap, "stem", x)
        out = {"stem": x}
        block_type = rematerialise(self._block_type(), self.remat)
        i = 0
        for number, stage in enumerate(stages):
            if number > 0:
                x = self._merged(x, stage.width, f"downsample{number}")
            for j in range(stage.depth):
                site = f"block{i:02d}"
                fields = {**self._block_fields(number), "tap": tap, "site": site}
                x, block_out = block_type(shifted=j % 2 == 1, **fields, name=site)(
                    x, keys[i], rates[i]
                )
                out |= {f"{site}/{name}".rstrip("/"): value for name, value in block_out.items()}
                i += 1

        x = layer_norm(x, self.precision, "norm", epsilon=_EPSILON)
        x, out = spatial_sites(x, out, tap)
        pooled = out["pooled"] = pooled_map(x, tap, self.precision)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)

    @nn.nowrap
    def _block_type(self) -> type[nn.Module]:
        return SwinBlock

    @nn.nowrap
    def _block_fields(self, stage: int) -> Mapping[str, Any]:
        return {
            "stage": self.resolved()[stage],
            "mlp_ratio": self.mlp_ratio,
            "precision": self.precision,
            "trained": 0 if self.trained_windows is None else self.trained_windows[stage],
        }

    @nn.nowrap
    def _merged(self, x: jax.Array, width: int, name: str) -> jax.Array:
        """Four neighbours become one token of twice their channels."""
        x = neighbours(x)
        x = layer_norm(x, self.precision, f"{name}_norm", epsilon=_EPSILON)
        return dense(x, width, self.precision, f"{name}_reduction", _INIT, use_bias=False)
