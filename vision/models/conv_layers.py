"""Layers of convolutional towers: a convolution with PyTorch's padding, and BatchNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from vision.config.ranges import Gt, Rule
from vision.models.convolution import convolve
from vision.models.layers import Initializer
from vision.train.precision import Precision

# Of the channels of a table whose narrowest layer has 64.
WidthMultiplier = Annotated[
    float, Gt(0), Rule("64 times it a whole number", lambda m: float(64 * m).is_integer())
]
HE_FAN_OUT: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def grouped_convolve(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """``convolve`` of kernels that are small beside the activations, as with several groups."""
    # From a kernel split by channel the partitioner concludes to split the activations by
    # channel, and moves all of them there and back. The kernel is small: gather it.
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        kernel = jax.lax.with_sharding_constraint(kernel, P())
    return convolve(x, kernel, *args, **kwargs)


def conv(
    channels: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    padding: int | tuple[int, int] | str | None = None,
    use_bias: bool = False,
    *,
    precision: Precision,
    name: str,
    kernel_init: Initializer = HE_FAN_OUT,
    function: Callable[..., jax.Array] | None = None,
) -> nn.Conv:
    """Convolution ``name`` of the module that calls it; parameters ``kernel`` and ``bias``.

    Args:
      channels: of the result; as many as the input's, and as many groups, make it depthwise.
      kernel: its side, or height and width.
      stride: of both axes, or of each.
      groups: into which the channels of input and result are divided.
      padding: zeros on both sides of both axes, or of each, or a name that ``nn.Conv`` knows; None
        is half the kernel's side, rounded down. "SAME" would pad a strided convolution more on
        one side and shift every kernel trained with PyTorch by a pixel.
      use_bias: whether there is one, from zero.
      precision: number formats of parameters and result.
      name: of the layer.
      kernel_init: normal of variance 2 / (area times channels of the result), He et al., 2015.
      function: the implementation, with the signature of ``convolve``; None is ``convolve`` itself.
    """
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    if padding is None:
        padding = (size[0] // 2, size[1] // 2)
    if function is None:
        function = convolve if groups == 1 else grouped_convolve
    return nn.Conv(
        channels,
        size,
        strides=stride,
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=precision.compute,
        param_dtype=precision.params,
        kernel_init=kernel_init,
        conv_general_dilated=function,
        name=name,
    )


class BatchNorm(nn.BatchNorm):
    """Normalises by its running statistics where those may not change: see ``AdaptedTower``.

    Attributes:
      rows: so many consecutive rows of a training batch are normalised by their own statistics,
        and the running ones move towards the mean of all of them; None for the whole batch.
    """

    rows: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        fixed = use_running_average or not self.is_mutable_collection("batch_stats")
        batch, rows = x.shape[0], self.rows
        if fixed or rows is None or batch <= rows or self.is_initializing():
            return super().__call__(x, use_running_average=fixed, mask=mask)
        if batch % rows:
            raise ValueError(f"norm_rows={rows} do not divide the {batch} rows of a batch")
        return self._by_group(x, batch // rows)

    def _by_group(self, x: jax.Array, groups: int) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        y = x.reshape(groups, -1, *x.shape[1:]).astype(jnp.float32)
        axes = tuple(range(1, y.ndim - 1))
        mean = y.mean(axes, keepdims=True)
        # One pass over the activations, as with the statistics of the whole batch.
        variance = jnp.maximum(0.0, jnp.square(y).mean(axes, keepdims=True) - jnp.square(mean))
        for name, value in (("mean", mean), ("var", variance)):
            running: Any = self.variable("batch_stats", name, jnp.zeros, shape, jnp.float32)
            new = value.reshape(groups, -1).mean(0)
            running.value = self.momentum * running.value + (1 - self.momentum) * new
        y = (y - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias
        return y.reshape(x.shape).astype(self.dtype or x.dtype)


def batch_norm(
    x: jax.Array,
    train: bool,
    precision: Precision,
    name: str,
    scale_init: Initializer = nn.initializers.ones,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    rows: int | None = None,
) -> jax.Array:
    """BatchNorm ``name`` of the module that calls it: parameters ``scale`` and ``bias``.

    Its ``mean`` and ``var`` are in the collection ``batch_stats``, float32, and move by ``1 -
    momentum`` of the way at each step; ``var`` is the biased variance. PyTorch calls ``1 -
    momentum`` the momentum. ``rows``: see ``BatchNorm``.
    """
    layer = BatchNorm(
        momentum=momentum,
        epsilon=epsilon,
        dtype=precision.compute,
        param_dtype=precision.params,
        scale_init=scale_init,
        rows=rows,
        name=name,
    )
    return layer(x, use_running_average=not train)
