"""Relevance: conservation, gradient times input, captum's numbers, and towers as they are."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from papers.salient_relevance import captum
from tests.tiny import drawn
from vision.blocks.relevance import Lrp, RelevanceError, relevance
from vision.blocks.tape import record, vjp
from vision.models.convolution import convolve, max_pool
from vision.models.plain_conv import PlainConv
from vision.models.vit import ViT
from vision.train.tower import forward, initialise

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 12, 12, 3)), jnp.float32)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def kernel(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5, jnp.float32)


K1, K2, W1, W2 = kernel(3, 3, 3, 6), kernel(3, 3, 6, 8), kernel(72, 10), kernel(10, 5)
W3 = kernel(3, 4, 4)
WEIGHTS = jax.nn.one_hot(jnp.asarray([0, 3, 1]), 5)


def free_of_bias(x: jax.Array) -> jax.Array:
    for k in (K1, K2):
        x = jax.nn.relu(convolve(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT))
        x = max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))
    return jax.nn.relu(x.reshape(len(x), -1) @ W1) @ W2


def test_without_biases_it_is_gradient_times_input_and_conserved():
    def both(x: jax.Array) -> tuple[jax.Array, ...]:
        logits = free_of_bias(x)
        one_hot = jax.nn.one_hot(jnp.argmax(logits, 1), 5)
        slope = jax.grad(lambda x: (one_hot * free_of_bias(x)).sum())(x)
        plus = Lrp("alpha_beta", "alpha_beta")
        given = (Lrp(epsilon=0), Lrp(), plus, dataclasses.replace(plus, alpha=2))
        maps = [relevance(free_of_bias, x, one_hot, rules) for rules in given]
        return x * slope, logits.max(1), *maps

    # A constant patch: all of a window's pixels are the largest.
    expected, logit, *relevances = map(np.asarray, jax.jit(both)(X.at[0, :6, :6].set(0.5)))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(relevances[0], expected, atol=2e-6 * scale)
    np.testing.assert_allclose(relevances[1], expected, atol=1e-5 * scale)
    for each in relevances:
        np.testing.assert_allclose(each.sum((1, 2, 3)), logit, rtol=1e-3)
    assert np.abs(relevances[2] - expected).max() > 0.05 * scale
    assert (relevances[2] * logit[:, None, None, None] >= -1e-7).all()  # z+ has one sign
    assert (relevances[3] * logit[:, None, None, None] < -1e-4).any()


def test_tape_with_true_rules_is_the_gradient():
    def function(x: jax.Array) -> jax.Array:
        def step(carry: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
            carry = jax.nn.gelu(carry @ w) + jnp.where(carry > 0, carry, 0.1 * carry)
            return carry, carry[:, :2]

        last, outputs = lax.scan(step, x, W3, reverse=True)
        return last.sum(1) + jnp.sin(outputs[0, :, 1]) * outputs[2, :, 0]

    x = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return record(function, x).pull(jnp.ones(5), vjp), jax.grad(lambda x: function(x).sum())(x)

    computed, expected = jax.jit(both)(x)
    np.testing.assert_allclose(computed, expected, rtol=2e-5, atol=1e-6)


def test_captum_says_the_same_of_a_cnn_and_an_mlp():
    errors = captum.errors()
    assert {f"{net}/lrp/{rule}" for net in ("cnn", "mlp") for rule in captum.RULES} <= set(errors)
    assert max(errors.values()) < 1e-5, errors


def test_rules_of_dense_layers_and_of_convolutions_are_two():
    one = jnp.asarray(RNG.normal(size=(1, 1, 3, 4)), jnp.float32)
    head = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    weights = WEIGHTS[:, :5]

    def pointwise(x: jax.Array) -> jax.Array:
        """A convolution that is a matrix product on one CPU device."""
        x = convolve(x, one, (1, 1), "VALID", dimension_numbers=LAYOUT)
        return jax.nn.relu(x).mean((1, 2)) @ head

    def general(x: jax.Array) -> jax.Array:
        x = lax.conv_general_dilated(x, one, (1, 1), "VALID", dimension_numbers=LAYOUT)
        return jax.nn.relu(x).mean((1, 2)) @ head

    @jax.jit
    def maps(x: jax.Array) -> list[jax.Array]:
        rules = (Lrp("alpha_beta"), Lrp(), Lrp("alpha_beta", "alpha_beta"))
        return [relevance(net, x, weights, r) for net in (pointwise, general) for r in rules]

    mixed, epsilon, plus, *others = map(np.asarray, maps(X[:, :4, :4]))
    for mine, other in zip((mixed, epsilon, plus), others, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
    assert not np.allclose(mixed, epsilon, atol=1e-3)
    assert not np.allclose(mixed, plus, atol=1e-3)


@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_that_is_not_folded_gives_the_relevance_of_the_folded_one(bias: bool):
    rng = np.random.default_rng(7)
    norms = []
    for k in (K1, K2):
        scale, shift, mean = (
            jnp.asarray(rng.normal(size=k.shape[-1]), jnp.float32) for _ in range(3)
        )
        variance = jnp.asarray(rng.uniform(0.3, 3, k.shape[-1]), jnp.float32)
        offset = jnp.asarray(rng.normal(size=k.shape[-1]) * bias, jnp.float32)
        norms.append((k, offset, mean, variance, scale, shift))

    def net(x: jax.Array, folded: bool) -> jax.Array:
        for kernel, offset, mean, variance, scale, shift in norms:
            factor = scale * lax.rsqrt(variance + 1e-5)
            if folded:
                kernel, shift = kernel * factor, shift + (offset - mean) * factor
            x = convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)
            if not folded:
                x = ((x + offset if bias else x) - mean) * factor
            x = jax.nn.relu(x + shift)
            x = max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))
        return x.reshape(len(x), -1) @ W1 @ W2

    @jax.jit
    def both(x: jax.Array) -> list[jax.Array]:
        rules = [Lrp("alpha_beta", "alpha_beta", alpha=alpha) for alpha in (1.0, 2.0)]
        return [
            relevance(lambda x, f=f: net(x, f), x, WEIGHTS, r)
            for r in (*rules, Lrp(epsilon=0.1))
            for f in (False, True)
        ]

    relevances = list(map(np.asarray, both(X)))
    for unfolded, folded in zip(relevances[::2], relevances[1::2], strict=True):
        np.testing.assert_allclose(unfolded, folded, atol=2e-5 * np.abs(folded).max())


@pytest.mark.parametrize("name", ["vit", "plain_conv"])
def test_towers_conserve_relevance(name: str):
    """Biases, positions and the means of norms aside, which absorb: set to zero here."""
    tower: Any = (
        ViT(width=8, depth=1, heads=2, patch=4, pool="mean", num_classes=3)
        if name == "vit"
        else PlainConv(width=4, depth=2, num_classes=3)
    )
    images = X[:2, :8, :8]
    absorb = ("bias", "pos_embed", "mean")
    params, state = jax.tree_util.tree_map_with_path(
        lambda path, x: np.zeros_like(x) if any(name in str(path) for name in absorb) else x,
        drawn(functools.partial(initialise, tower), images),
    )

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def logits(x: jax.Array) -> jax.Array:
            return forward(tower, params, state, x, train=False)[1]["logits"]

        weights = jnp.eye(3)[:2]
        return relevance(logits, x, weights), (weights * logits(x)).sum(1)

    on_pixels, logit = both(images)
    np.testing.assert_allclose(np.asarray(on_pixels).sum((1, 2, 3)), logit, rtol=1e-3, atol=1e-5)


def test_windows_go_to_their_winner_and_means_are_shared():
    """As pooling is written on an accelerator."""

    def pooled(x: jax.Array) -> jax.Array:
        window: tuple[Any, ...] = ((1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = lax.reduce_window(x, -jnp.inf, lax.max, *window)
        return lax.reduce_window(x, 0.0, lax.add, *window).reshape(len(x), -1)[:, :5]

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = jax.grad(lambda x: (WEIGHTS * pooled(x)).sum())(x)
        return relevance(pooled, x, WEIGHTS), x * slope

    on_pixels, expected = both(X.at[:, :4].set(1.0))
    np.testing.assert_allclose(on_pixels, expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(on_pixels).sum((1, 2, 3)), [4.0] * 3, rtol=1e-5)


def test_what_has_no_rule_is_named():
    with pytest.raises(RelevanceError, match="'sort'"):
        relevance(lambda x: jnp.sort(x, 1), X[:, :, 0, 0], jnp.ones((3, 12)))
    with pytest.raises(ValueError, match="dense is 'z', expected one of"):
        Lrp(dense="z")  # pyright: ignore[reportArgumentType]
    # What the asked output does not read may be anything.
    free = relevance(lambda x: (2 * x, jnp.sort(x))[0], X[:, :, 0, 0], jnp.ones((3, 12)))
    np.testing.assert_allclose(free, 2 * X[:, :, 0, 0])
