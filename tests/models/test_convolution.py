"""Every form gives what ``lax.conv_general_dilated`` gives, and so do its derivatives."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vision.models.convolution import convolve, max_pool

LAYOUT = ("NHWC", "HWIO", "NHWC")
# size, channels, features, kernel, stride, padding, groups
CASES = {
    "ResNet stem": (20, 3, 6, 7, 2, 3, 1),
    "ResNet stem, odd size": (17, 3, 6, 7, 2, 3, 1),
    "pointwise": (6, 5, 7, 1, 1, 0, 1),
    "pointwise, wide": (4, 256, 3, 1, 1, 0, 1),
    "pointwise, stride 2": (7, 5, 7, 1, 2, 0, 1),
    "3x3": (6, 9, 4, 3, 1, 1, 1),
    "3x3, several products": (80, 2, 2, 3, 1, 1, 1),
    "3x3, stride 2": (9, 9, 4, 3, 2, 1, 1),
    "3x3, stride 2, few channels": (8, 2, 4, 3, 2, 1, 1),
    "patches": (9, 3, 5, 4, 4, 0, 1),
    "depthwise 7x7": (6, 4, 4, 7, 1, 3, 4),
    "depthwise 3x3 without padding": (6, 4, 4, 3, 1, 0, 4),
    "grouped": (6, 4, 8, 3, 1, 1, 2),
    "depthwise, stride 2": (6, 4, 4, 3, 2, 1, 4),
}


def both(case):
    size, channels, features, kernel, stride, padding, groups = case
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, size, size, channels)), jnp.float32)
    weights = jnp.asarray(
        rng.normal(size=(kernel, kernel, channels // groups, features)), jnp.float32
    )
    arguments = {
        "window_strides": (stride, stride),
        "padding": ((padding, padding),) * 2,
        "dimension_numbers": LAYOUT,
        "feature_group_count": groups,
    }
    ours = functools.partial(convolve, **arguments)
    return ours, functools.partial(lax.conv_general_dilated, **arguments), x, weights


def close(a, b):
    scale = max(float(jnp.abs(b).max()), 1.0)
    np.testing.assert_allclose(a / scale, b / scale, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_value_and_derivatives(name):
    ours, reference, x, weights = both(CASES[name])

    @functools.partial(jax.jit, static_argnums=0)
    def everything(f, x, weights):
        y, vjp = jax.vjp(f, x, weights)
        g = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        _, along = jax.jvp(f, (x, weights), (x + 1, weights - 1))
        return y, vjp(g), along

    y, (dx, dw), along = everything(ours, x, weights)
    y_, (dx_, dw_), along_ = everything(reference, x, weights)
    for a, b in ((y, y_), (dx, dx_), (dw, dw_), (along, along_)):
        close(a, b)


@pytest.mark.parametrize("name", ["3x3", "depthwise 3x3 without padding"])
def test_higher_derivatives_and_batching(name):
    ours, reference, x, weights = both(CASES[name])

    @functools.partial(jax.jit, static_argnums=0)
    def curvature(f, x, weights):
        def loss(x, weights):
            return jnp.sum(jnp.tanh(f(x, weights) / 10) ** 2)

        gradient = jax.grad(loss, argnums=(0, 1))
        _, product = jax.jvp(gradient, (x, weights), (weights.mean() * x, weights))

        def norm(weights):
            return sum(jnp.sum(part**2) for part in gradient(x, weights))

        per_image = jax.vmap(jax.grad(lambda w, x: loss(x[None], w)), in_axes=(None, 0))
        return product, jax.grad(norm)(weights), per_image(weights, x)

    jax.tree.map(close, curvature(ours, x, weights), curvature(reference, x, weights))


def test_gradient_of_the_kernel_needs_no_gradient_of_the_image():
    ours, _, x, weights = both(CASES["ResNet stem"])

    def loss(weights):
        return ours(x, weights).sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(weights))
    assert text.count("conv_general_dilated") == 1


@pytest.mark.parametrize("name", ["3x3", "patches", "depthwise 7x7"])
def test_other_layouts_dtypes_and_dilations_use_lax(name):
    _, _, x, weights = both(CASES[name])
    groups = CASES[name][-1]
    for kwargs, cast in (
        ({"rhs_dilation": (2, 2)}, jnp.float32),
        ({"lhs_dilation": (2, 1)}, jnp.float32),
        ({"padding": "SAME"}, jnp.bfloat16),
        ({"padding": ((-1, 4), (1, 1))}, jnp.float32),
    ):
        arguments = {
            "window_strides": (1, 1),
            "padding": ((4, 4), (4, 3)),
            "dimension_numbers": LAYOUT,
            "feature_group_count": groups,
            **kwargs,
        }
        a = convolve(x.astype(cast), weights.astype(cast), **arguments)
        b = lax.conv_general_dilated(x.astype(cast), weights.astype(cast), **arguments)
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def test_in_a_module_names_and_shapes_are_those_of_conv():
    x = jnp.ones((1, 8, 8, 4))
    for padding in ("SAME", "VALID", "CIRCULAR", 1):
        plain = nn.Conv(6, (3, 3), padding=padding)
        fast = nn.Conv(6, (3, 3), padding=padding, conv_general_dilated=convolve)
        variables = plain.init(jax.random.key(0), x)
        assert jax.tree.map(jnp.shape, fast.init(jax.random.key(0), x)) == jax.tree.map(
            jnp.shape, variables
        )
        close(fast.apply(variables, x), plain.apply(variables, x))


def test_sharded_arrays_use_lax():
    ours, reference, x, weights = both(CASES["3x3"])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert str(jax.make_jaxpr(ours)(x, weights)) == str(jax.make_jaxpr(reference)(x, weights))


@pytest.mark.parametrize(("window", "stride", "pad"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_max_pool(window, stride, pad):
    rng = np.random.default_rng(0)
    # Few different values: ties in every window.
    x = jnp.asarray(rng.integers(-2, 2, size=(2, 8, 9, 3)), jnp.float32)
    pads: Any = ((pad, pad), (pad, pad))  # flax annotates only strings

    def ours(x):
        return max_pool(x, (window, window), (stride, stride), pads)

    def reference(x):
        return nn.max_pool(x, (window, window), (stride, stride), pads)

    (y, vjp), (y_, vjp_) = jax.vjp(ours, x), jax.vjp(reference, x)
    np.testing.assert_array_equal(y, y_)
    g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    np.testing.assert_allclose(vjp(g)[0], vjp_(g)[0], atol=1e-6)


def test_max_pool_does_not_hide_a_nan():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    assert np.isnan(max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))).sum() == 1


def test_max_pool_forward_mode():
    rng = np.random.default_rng(0)
    x, dx = (jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32) for _ in range(2))
    pads: Any = ((1, 1), (1, 1))
    along = jax.jvp(lambda x: max_pool(x, (3, 3), (2, 2), pads), (x,), (dx,))[1]
    # Which value is chosen does not change over so small a step.
    step = 1e-3
    ahead, here = (nn.max_pool(x + s * dx, (3, 3), (2, 2), pads) for s in (step, 0))
    np.testing.assert_allclose(along, (ahead - here) / step, atol=2e-3)
