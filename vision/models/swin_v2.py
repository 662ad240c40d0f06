"""Swin transformer V2: attention by cosines, biases from a small network, norms after branches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import NonEmpty, NonNegative, checked
from vision.models.attention import attention_logits, softmax_mean, weighted_mean
from vision.models.layers import Mlp, dense, drop_path, layer_norm, query_key_value
from vision.models.relative_bias import bias_of, offset_rows
from vision.models.swin import (
    Pair,
    StagePlan,
    Swin,
    in_fixed_windows,
    in_windows,
    neighbours,
)
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, wants

_INIT = nn.initializers.truncated_normal(0.02)
_EPSILON = 1e-5
_LARGEST_SCALE = math.log(100.0)
# Of logits between tokens that a shifted window holds from opposite sides of the image; what the
# weights were trained with, and what they can overcome.
_MASKED = -100.0


def log_offsets(window: Pair, trained: int) -> np.ndarray:
    """((2 a - 1) (2 b - 1), 2) float32: offsets in a window, on a scale of logarithms.

    Args:
      window: sides a and b.
      trained: side of the windows that offsets are relative to; 0 for this window's own.
    """
    axes = []
    for side in window:
        offsets = np.arange(1 - side, side, dtype=np.float32)
        offsets = 8 * offsets / max((trained or side) - 1, 1)
        axes.append(np.sign(offsets) * np.log2(np.abs(offsets) + 1) / math.log2(8))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


class CosineAttention(nn.Module):
    """Self-attention within each window by cosines, with biases of a network of the offsets.

    Attributes:
      heads: of the attention.
      trained: see ``log_offsets``.
      masked: added to the logits of tokens that do not attend to each other.
      precision: number formats.
    """

    heads: int
    trained: int
    masked: float
    precision: Precision

    @nn.compact
    def __call__(
        self, x: jax.Array, window: Pair, mask: np.ndarray | None, tap: Tap | None, site: str
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(B, windows, N, C), and the attention weights (B, windows, heads, N, N) if tapped."""
        width, params = x.shape[-1], self.precision.params
        q, k, v = query_key_value(x, self.heads, self.precision, _INIT, use_bias=False)
        q, v = (
            y
            + self.param(name, nn.initializers.zeros, (width,), params)
            .astype(y.dtype)
            .reshape(self.heads, -1)
            for name, y in (("q_bias", q), ("v_bias", v))
        )
        q, k = (_unit(y.astype(jnp.float32)) for y in (q, k))
        start = nn.initializers.constant(math.log(10.0))
        scale = self.param("log_scale", start, (self.heads,), params).astype(jnp.float32)
        scale = jnp.exp(jnp.minimum(scale, _LARGEST_SCALE))
        logits = attention_logits(q, k, self.precision.attention_logits)
        bias = bias_of(self._biases(window), offset_rows(window, window))
        logits = logits * scale[:, None, None] + bias
        if mask is not None:
            logits = logits + jnp.where(mask[:, None], 0, self.masked)
        out = {}
        if wants(tap, site):
            out["attention"] = apply_tap(tap, site, jax.nn.softmax(logits, axis=-1))
            x = weighted_mean(out["attention"], v)
        else:
            x = softmax_mean(logits, v)
        x = constrain_batch(x, tensor=3).reshape(*x.shape[:3], width)
        return dense(x, width, self.precision, "proj", _INIT), out

    @nn.nowrap
    def _biases(self, window: Pair) -> jax.Array:
        """(offsets, heads) float32, between 0 and 16."""
        layer = {"dtype": jnp.float32, "param_dtype": self.precision.params, "kernel_init": _INIT}
        x = jnp.asarray(log_offsets(window, self.trained))
        x = nn.relu(nn.Dense(512, **layer, name="bias_fc1")(x))
        return 16 * nn.sigmoid(nn.Dense(self.heads, **layer, use_bias=False, name="bias_fc2")(x))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, -1, keepdims=True)), 1e-12)


class SwinV2Block(nn.Module):
    """``x + norm1(attn(x))`` in windows, shifted or not, then ``x + norm2(mlp(x))``.

    Returns what ``vision.models.swin.SwinBlock`` returns.

    Attributes:
      stage: width, heads and window.
      shifted: windows are moved by half their side.
      mlp_ratio: hidden width of the MLP over D.
      precision: number formats.
      trained: as in ``CosineAttention``.
      fixed_shift: as one of ``SwinV2.fixed_shifts``.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    stage: StagePlan
    shifted: bool
    mlp_ratio: float
    precision: Precision
    trained: int
    fixed_shift: int | None
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, key: jax.Array | None, rate: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site = self.tap, self.site
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        shift, side = self.fixed_shift, self.stage.window
        # transformers adds its mask twice.
        masked = _MASKED if shift is None else 2 * _MASKED
        attention = CosineAttention(
            self.stage.heads, self.trained, masked, self.precision, name="attn"
        )
        if shift is None:
            y, out = in_windows(attention, x, side, self.shifted, tap, f"{site}/attention")
        else:
            shift *= self.shifted
            y, out = in_fixed_windows(attention, x, side, shift, tap, f"{site}/attention")
        y = layer_norm(y, self.precision, "norm1", epsilon=_EPSILON)
        out["attn"] = apply_tap(tap, f"{site}/attn", drop_path(y, keys[0], rate))
        x = x + out["attn"]
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = Mlp(hidden, _INIT, self.precision, name="mlp")(x)
        y = layer_norm(y, self.precision, "norm2", epsilon=_EPSILON)
        out["mlp"] = apply_tap(tap, f"{site}/mlp", drop_path(y, keys[1], rate))
        x = out[""] = apply_tap(tap, site, constrain_batch(x + out["mlp"]))
        return x, out


@checked
class SwinV2(Swin):
    """Swin transformer V2 (Liu et al., 2022): sites, sizes and other fields as of ``Swin``.

    Its biases are a function of offsets, so that windows of any side have some; ``trained_windows``
    says in relation to which.

    Attributes:
      fixed_shifts: how far each stage's windows are shifted, as transformers has it: there neither
        windows nor shifts depend on the size of an image, padding comes before the shift, and
        masks count twice. None: half a window where the image is larger, as in timm.
    """

    fixed_shifts: NonEmpty[tuple[NonNegative[int], ...]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shifts, sides = self.fixed_shifts, [stage.window for stage in self.resolved()]
        if shifts is not None and (
            len(shifts) != len(sides)
            or any(shift >= side for shift, side in zip(shifts, sides, strict=True))
        ):
            raise ValueError(f"fixed_shifts={shifts} are not within windows of {sides}")

    @nn.nowrap
    def _block_type(self) -> type[nn.Module]:
        return SwinV2Block

    @nn.nowrap
    def _block_fields(self, stage: int) -> Mapping[str, Any]:
        shift = None if self.fixed_shifts is None else self.fixed_shifts[stage]
        return {**super()._block_fields(stage), "fixed_shift": shift}

    @nn.nowrap
    def _merged(self, x: jax.Array, width: int, name: str) -> jax.Array:
        x = dense(neighbours(x), width, self.precision, f"{name}_reduction", _INIT, use_bias=False)
        return layer_norm(x, self.precision, f"{name}_norm", epsilon=_EPSILON)
