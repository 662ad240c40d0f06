"""Number formats reach where they should, and forgetting intermediates changes memory only."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import abstract_variables, quick_jit, random_variables

from tests.slow import with_slow
from vision.models import layers
from vision.models.attention import attention_weights
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.parallel.jax_internals import equations
from vision.train.precision import Precision
from vision.train.tower import forward

SHAPE = (8, 16, 16, 3)
TOKENS, HEADS = 16, 2


def vit(**fields: Any) -> ViT:
    return ViT(width=16, depth=3, heads=HEADS, patch=4, pool="mean", num_classes=5, **fields)


def unrolled(**fields: Any) -> ViT:
    return vit(scan=False, **fields)


def resnet(**fields: Any) -> ResNet:
    return ResNet(depth=10, stem="cifar", width_multiplier=0.125, num_classes=5, **fields)


def convnext(**fields: Any) -> ConvNeXt:
    return ConvNeXt(depths=(2, 1), dims=(8, 16), stem_stride=2, num_classes=5, **fields)


def trace(tower: Any, train: bool = False) -> tuple[list[Any], Any]:
    variables = abstract_variables(tower, SHAPE)

    def apply(variables: Any, x: jax.Array) -> Any:
        _, out, state = forward(tower, *variables, x, train=train)
        return out, state

    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    jaxpr, shapes = jax.make_jaxpr(apply, return_shape=True)(variables, x)
    return list(equations(jaxpr.jaxpr)), shapes


def dtypes(tree: Any) -> set[str]:
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("tower", [vit, resnet, convnext])
def test_parameters_outputs_and_statistics(tower: Any):
    half = tower(precision=Precision("bfloat16", "bfloat16", "bfloat16"))
    params, state = abstract_variables(half, SHAPE)
    assert dtypes(params) == {"bfloat16"}
    assert dtypes(state) <= {"float32"}
    actual, (out, state) = trace(half, train=True)
    assert dtypes(out) == {"bfloat16"}
    assert dtypes(state) <= {"float32"}
    statistics = [e for e in actual if e.primitive.name == "rsqrt"]
    assert statistics
    assert {e.outvars[0].aval.dtype.name for e in statistics} == {"float32"}

    mixed = tower(precision=Precision(compute="bfloat16"))
    assert dtypes(abstract_variables(mixed, SHAPE)) == {"float32"}
    actual, (out, _) = trace(mixed)
    assert {name for name, x in out.items() if x.dtype == jnp.float32} == {
        "pooled",
        "embedding",
        "logits",
    }
    # Products are of bfloat16 everywhere but in the head.
    products = [e for e in actual if e.primitive.name in ("dot_general", "conv_general_dilated")]
    wide = [e for e in products if dtypes([v.aval for v in e.invars]) != {"bfloat16"}]
    assert len(products) > 3
    assert [e.outvars[0].aval.shape for e in wide] == [(SHAPE[0], 5)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_logits(dtype: Any):
    tower = vit(precision=Precision(compute="bfloat16", attention_logits=dtype))
    actual, _ = trace(tower)
    size = SHAPE[0] * HEADS * TOKENS * TOKENS
    square = [e for e in actual if e.outvars[0].aval.size == size]
    logits = [e for e in square if e.primitive.name == "dot_general"]
    assert [e.outvars[0].aval.dtype.name for e in logits] == [dtype]
    softmax = [e for e in square if e.primitive.name == "exp"]
    assert [e.outvars[0].aval.dtype.name for e in softmax] == ["float32"]


def test_attention_logits_change_little():
    # Not compiled as one: a compiler may keep more digits than it is told to.
    q, k = jax.random.normal(jax.random.key(0), (2, 2, TOKENS, HEADS, 8))
    exact, half = attention_weights(q, k), attention_weights(q, k, "bfloat16")
    assert exact.dtype == half.dtype == jnp.float32
    np.testing.assert_allclose(half.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(half, exact, atol=0.02)
    assert np.abs(half - exact).max() > 1e-5


def test_bad_precision():
    with pytest.raises(ValueError, match="compute='int8', but it is one of 'float32', 'bfloat16'"):
        Precision(compute="int8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"'xla' needs precision.attention_logits='float32'"):
        vit(attention="xla", precision=Precision(attention_logits="bfloat16"))


def loss(tower: Any, params: Any, state: Any, x: jax.Array) -> Any:
    _, out, state = forward(tower, params, state, x, train=True)
    return jax.nn.logsumexp(out["logits"], axis=-1).sum(), state


def kept_bytes(tower: Any) -> int:
    """What the forward pass hands to the backward pass beside parameters and state."""

    def residuals(params: Any, state: Any, x: jax.Array) -> Any:
        return jax.vjp(lambda p: loss(tower, p, state, x)[0], params)[1]

    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    variables = abstract_variables(tower, SHAPE)
    return nbytes(jax.eval_shape(residuals, *variables, x)) - nbytes(variables)


def nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("tower", [vit, unrolled, resnet, convnext])
def test_remat_keeps_less(tower: Any):
    kept = {remat: kept_bytes(tower(remat=remat)) for remat in ("none", "dots", "full")}
    assert kept["full"] < kept["dots"] < 0.5 * kept["none"], kept


@pytest.mark.parametrize("tower", with_slow([unrolled, resnet, convnext], [resnet, convnext]))
def test_remat_changes_no_gradient(tower: Any):
    """The same loss, statistics and gradients."""
    params, state = random_variables(tower(), SHAPE)
    x = jax.random.normal(jax.random.key(1), SHAPE)

    def run(remat: str) -> Any:
        function = functools.partial(loss, tower(remat=remat))
        return quick_jit(jax.value_and_grad(function, has_aux=True))(params, state, x)

    plain, again = run("none"), run("full")
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_a_scan_on_a_tpu_keeps_products_and_no_weights_of_attention(
    monkeypatch: pytest.MonkeyPatch,
):
    """Without remat too: what leaves a scan's body is stored, and arithmetic is cheaper."""
    params, state = random_variables(vit(), SHAPE)
    x = jax.random.normal(jax.random.key(1), SHAPE)
    run = quick_jit(jax.value_and_grad(functools.partial(loss, vit()), has_aux=True))
    plain, all_kept = run(params, state, x), kept_bytes(vit())
    monkeypatch.setattr(layers, "platform", lambda: "tpu")
    kept = kept_bytes(vit())
    # By layer: its input, q, k and v, attention, and the results of four products.
    tokens, width, depth = SHAPE[0] * TOKENS, 16, 3
    products = depth * tokens * width * 4 * (1 + 3 + 1 + 1 + 4 + 1)
    assert products < kept < 1.2 * products < all_kept
    run = quick_jit(jax.value_and_grad(functools.partial(loss, vit()), has_aux=True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(run(params, state, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
