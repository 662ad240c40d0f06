"""Layers that several image towers share: noise, MLP, layer scale, spatial outputs, the head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vision.models.attention import ATTENTION, QUERY_KEY_VALUE
from vision.models.convolution import CONVOLUTION
from vision.parallel.mesh import ShardingRule, constrain_batch, platform
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap

Initializer = nn.initializers.Initializer
Remat = Literal["none", "full", "dots"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Block = TypeVar("Block", bound=Callable[..., Any])

# The columns of the first layer of every MLP over tensor, the rows of the second.
MLP_TENSOR_PARALLEL = (
    ShardingRule(r"mlp/fc1/kernel", ("fsdp", "tensor")),
    ShardingRule(r"mlp/fc1/bias", ("tensor",)),
    ShardingRule(r"mlp/fc2/kernel", ("tensor", "fsdp")),
)


_is_named_convolution = jax.checkpoint_policies.save_only_these_names(CONVOLUTION)


def _is_product(primitive: Any, *args: Any, **params: Any) -> Any:
    if primitive is jax.lax.conv_general_dilated_p:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(
        primitive, *args, **params
    ) or _is_named_convolution(primitive, *args, **params)


_is_attention = jax.checkpoint_policies.save_only_these_names(ATTENTION, QUERY_KEY_VALUE)


def _is_product_or_attention(primitive: Any, *args: Any, **params: Any) -> Any:
    # cuDNN's has a second output, which a name on the first does not reach.
    if str(primitive).startswith("dot_product_attention_fwd"):
        return True
    return _is_product(primitive, *args, **params) or _is_attention(primitive, *args, **params)


def rematerialise(
    block: Block, remat: Remat, *, scanned: bool = False, static: tuple[int, ...] = ()
) -> Block:
    """A block whose intermediates are recomputed in the backward pass.

    Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    Args:
      block: class of the block, or a function of the module whose layers it calls.
      remat: what it keeps for the backward pass: ``none`` leaves that to the compiler, ``full``
        keeps only its input, ``dots`` also the results of convolutions and of products with
        parameters.
      scanned: the block is the body of a scan, which keeps the compiler from merging the two
        computations by itself. Under ``none`` a GPU's or TPU's keeps results of products and of
        attention: out of a scan these compilers compute the rest again, since arithmetic is
        cheaper than memory; what leaves the body of one they would have to store, several times
        as much. On a CPU all is kept.
      static: positions of arguments, the module being 0, that are Python values.
    """
    if remat == "none" and (not scanned or platform() == "cpu"):
        return block
    policy = {
        "none": _is_product_or_attention,
        "dots": _is_product,
        "full": jax.checkpoint_policies.nothing_saveable,
    }[remat]
    return nn.remat(block, prevent_cse=not scanned, policy=policy, static_argnums=static)


def check_images(x: jax.Array) -> None:
    """Raises unless ``x`` can be a batch of images: (B, h, w, C), floating point."""
    if x.ndim != 4:
        raise ValueError(f"images are (batch, height, width, channels), not of shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"images are floating point, not {x.dtype}: map their value range to floats first"
        )


def dropout(x: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    """Zeroes elements with probability ``rate`` and rescales the rest; ``x`` without a key."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def drop_path(x: jax.Array, key: jax.Array | None, rate: jax.Array | float | None) -> jax.Array:
    """Stochastic depth: zeroes whole examples of a residual branch, and rescales the others.

    Huang et al., Deep Networks with Stochastic Depth, 2016.

    Args:
      x: (B, ...) a branch, before it is added.
      key: randomness; without one ``x`` is returned.
      rate: probability in [0, 1) of dropping an example; may be traced. None is 0.
    """
    if key is None or rate is None:
        return x
    keep = 1 - jnp.asarray(rate, jnp.float32)
    mask = jax.random.bernoulli(key, keep, (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * (mask / keep).astype(x.dtype)


def drop_path_rates(rate: float, depth: int) -> jax.Array:
    """(depth,) float32: 0 at the first block, rising linearly to ``rate`` at the last."""
    return jnp.linspace(0, rate, depth, dtype=jnp.float32)


def block_keys(module: nn.Module, rate: float, count: int, train: bool) -> list[jax.Array | None]:
    """A key per block for what a rate drops; None for every block where nothing is dropped."""
    if not (train and rate):
        return [None] * count
    return list(jax.random.split(module.make_rng("dropout"), count))


def as_output(precision: Precision) -> Precision:
    """Number formats of layers that compute an output of the tower."""
    return dataclasses.replace(precision, compute=precision.output)


def dense(
    x: jax.Array,
    features: int,
    precision: Precision,
    name: str,
    kernel_init: Initializer,
    bias_init: Initializer = nn.initializers.zeros,
    use_bias: bool = True,
    shape: tuple[int, ...] = (-1,),
    tensor: int | None = None,
) -> jax.Array:
    """Dense layer ``name`` of the module that calls it, constrained as in ``constrain_batch``.

    The features are reshaped to ``shape``; ``tensor`` counts the dimensions of the result.
    """
    layer = (_ProductsDense if platform() == "tpu" else nn.Dense)(
        features,
        use_bias=use_bias,
        dtype=precision.compute,
        param_dtype=precision.params,
        kernel_init=kernel_init,
        bias_init=bias_init,
        name=name,
    )
    return constrain_batch(layer(x).reshape(*x.shape[:-1], *shape), tensor)


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """``x + bias`` whose gradient to ``bias`` is a product with ones.

    A TPU sums bfloat16 rows of tokens up thirty times as fast in its matrix unit as by itself: the
    sums of a ViT-S/16 were a sixth of its step.
    """
    return x + bias


@jax.jit
def sum_by_product(x: jax.Array) -> jax.Array:
    """(..., D) to (D,): sums over all rows. ``vision.train.flops`` counts it as the sum it is."""
    rows = tuple(range(x.ndim - 1))
    # As many rows of ones as a register has: fewer would be a sum again.
    ones = jnp.ones((8, *x.shape[:-1]), x.dtype)
    axes = ((tuple(i + 1 for i in rows), rows), ((), ()))
    sums = jax.lax.dot_general(ones, x, axes, preferred_element_type=jnp.float32)
    return sums[0].astype(x.dtype)


_add_bias.defvjp(lambda x, bias: (x + bias, None), lambda _, g: (g, sum_by_product(g)))


class _ProductsDense(nn.Dense):
    """``nn.Dense`` for a TPU; see ``_add_bias``."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        kernel_shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        x = inputs.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return x
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        return _add_bias(x, bias.astype(self.dtype))


class _ThreeProducts(nn.Module):
    """``nn.Dense`` of 3 D features, which are (heads, 3, d), as a product for each of the 3."""

    heads: int
    precision: Precision
    kernel_init: Initializer
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        width, stored = x.shape[-1], self.precision.params
        kernel = self.param("kernel", self.kernel_init, (width, 3 * width), stored)
        kernel = kernel.astype(self.precision.compute).reshape(width, self.heads, 3, -1)
        parts = [x @ kernel[:, :, i].reshape(width, width) for i in range(3)]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (3 * width,), stored)
            bias = bias.astype(self.precision.compute).reshape(self.heads, 3, -1)
            parts = [_add_bias(part, bias[:, i].reshape(width)) for i, part in enumerate(parts)]
        # Kept as they are here: with an axis of heads their layout has holes.
        return [checkpoint_name(part, QUERY_KEY_VALUE) for part in parts]


def query_key_value(
    x: jax.Array,
    heads: int,
    precision: Precision,
    kernel_init: Initializer,
    use_bias: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values (..., N, heads, D / heads) of tokens (..., N, D).

    Makes the dense layer ``qkv`` of the module that calls it: its columns are q, k and v of the
    first head, then of the second, and so on.
    """
    width, head = x.shape[-1], x.shape[-1] // heads
    if platform() == "tpu":
        # q, k and v of all heads lie between each other in the result of one product. To take them
        # apart, and their gradients together, moves it through memory again and again: attention
        # of a ViT-S/16 takes 1.7 times as long and as many bytes.
        layer = _ThreeProducts(heads, precision, kernel_init, use_bias, name="qkv")
        q, k, v = (
            constrain_batch(part.reshape(*x.shape[:-1], heads, head), tensor=x.ndim - 1)
            for part in layer(x.astype(precision.compute))
        )
        return q, k, v
    qkv = dense(
        x,
        3 * width,
        precision,
        "qkv",
        kernel_init,
        use_bias=use_bias,
        shape=(heads, 3, head),
        tensor=x.ndim - 1,
    )
    return qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]


def layer_norm(x: jax.Array, precision: Precision, name: str, epsilon: float = 1e-6) -> jax.Array:
    """LayerNorm ``name`` of the module that calls it, split by batch only.

    Statistics are float32 whatever the dtype of the result.
    """
    layer = nn.LayerNorm(
        epsilon=epsilon, dtype=precision.compute, param_dtype=precision.params, name=name
    )
    return constrain_batch(layer(x))


class LayerScale(nn.Module):
    """Learned per-channel factor of a residual branch (Touvron et al., CaiT, 2021).

    Attributes:
      initial: factor at the start.
      precision: number formats.
    """

    initial: float
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.constant(self.initial)
        gamma = self.param("gamma", init, (x.shape[-1],), self.precision.params)
        return x * gamma.astype(x.dtype)


def activate(x: jax.Array, activation: Activation) -> jax.Array:
    """The exact (erf) GELU, its tanh approximation, or CLIP's ``x * sigmoid(1.702 x)``."""
    if activation == "quick_gelu":
        return x * nn.sigmoid(1.702 * x)
    if activation == "gelu_tanh":
        return nn.gelu(x, approximate=True)
    # float32, since 1 + erf(x) loses all digits of 16 where x is negative. flax's erfc keeps them
    # at the price of an exponential and a division, a twentieth of a ViT's step on a CPU.
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * 2**-0.5))).astype(x.dtype)


class Mlp(nn.Module):
    """Two dense layers on the last axis with an activation between them.

    ``kernel_init`` is of both kernels, or of the first where the second has its ``out_init``.

    Attributes:
      hidden: width of the first layer.
      kernel_init: of kernels.
      precision: number formats.
      bias_init: of biases.
      dropout: after both layers.
      activation: between them.
      out_init: of the second kernel; None for ``kernel_init``.
    """

    hidden: int
    kernel_init: Initializer
    precision: Precision
    bias_init: Initializer = nn.initializers.zeros
    dropout: float = 0.0
    activation: Activation = "gelu"
    out_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        width = x.shape[-1]
        x = dense(
            x, self.hidden, self.precision, "fc1", self.kernel_init, self.bias_init, tensor=-1
        )
        x = dropout(activate(x, self.activation), keys[0], self.dropout)
        out_init = self.out_init or self.kernel_init
        x = dense(x, width, self.precision, "fc2", out_init, self.bias_init)
        return dropout(x, keys[1], self.dropout)


def spatial_sites(
    x: jax.Array, out: dict[str, jax.Array], tap: Tap | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sites ``tokens`` and ``map`` of a convolutional tower, from its last (B, h, w, C)."""
    batch, height, width, channels = x.shape
    tokens = apply_tap(tap, "tokens", x.reshape(batch, height * width, channels))
    x = apply_tap(tap, "map", tokens.reshape(batch, height, width, channels))
    return x, {**out, "tokens": tokens, "map": x}


def pooled_map(x: jax.Array, tap: Tap | None, precision: Precision) -> jax.Array:
    """Site ``pooled`` of a convolutional tower: means (B, C) over (B, h, w, C), in output dtype."""
    pooled = x.mean(axis=(1, 2), dtype=jnp.float32)
    return apply_tap(tap, "pooled", pooled.astype(precision.output))


def classify(
    embedding: jax.Array,
    out: dict[str, jax.Array],
    tap: Tap | None,
    num_classes: int | None,
    zero_init: bool,
    precision: Precision,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Ends a tower: sites ``embedding`` and, with classes, ``logits``, of the output dtype.

    Makes the dense layer ``head`` of the module that calls it. Without zero initialisation its
    kernel is normal with standard deviation 0.01 (Goyal et al., Accurate, Large Minibatch SGD,
    2017).
    """
    # Its gradient would be sharded like the head's kernel: constrain it to be split by batch.
    embedding = constrain_batch(apply_tap(tap, "embedding", embedding.astype(precision.output)))
    out = {**out, "embedding": embedding}
    if num_classes:
        init = nn.initializers.zeros if zero_init else nn.initializers.normal(0.01)
        logits = dense(embedding, num_classes, as_output(precision), "head", init)
        out["logits"] = apply_tap(tap, "logits", logits)
    return embedding, out
