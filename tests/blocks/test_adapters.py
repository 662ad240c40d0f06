"""LoRA and DoRA against their definitions, on stacks, matrices and convolutions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.adapters import Lora, init_adapters, merge_adapters
from vision.config.schema import ConfigError

SHAPES = {
    "blocks": {"attn": {"qkv": {"kernel": (2, 4, 12), "bias": (2, 12)}}},
    "conv": {"kernel": (3, 3, 4, 8)},
    "depthwise": {"kernel": (3, 3, 1, 8)},
    "head": {"kernel": (4, 5)},
}
LORA = Lora(pattern="qkv|conv|depthwise", rank=3, alpha=6.0)
DORA = Lora(pattern="qkv|conv|depthwise", rank=3, alpha=6.0, magnitude=True)


def draw(shapes: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    leaf = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), jnp.float32), shapes, is_leaf=leaf
    )


def noisy(tree: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)


@pytest.mark.parametrize("adapter", [LORA, DORA])
def test_initial_adapters_change_nothing_bitwise(adapter: Lora):
    params = draw(SHAPES)
    added = init_adapters((adapter,), params, jax.random.key(0))
    assert "head" not in added
    assert float(jnp.abs(added["conv"]["lora_a"]).max()) > 0
    for merge in (merge_adapters, jax.jit(merge_adapters, static_argnums=0)):
        jax.tree.map(np.testing.assert_array_equal, merge((adapter,), params, added), params)


def test_equations_of_lora_and_dora():
    params = draw(SHAPES)
    added = {a: noisy(init_adapters((a,), params, jax.random.key(0))) for a in (LORA, DORA)}
    merged = {a: merge_adapters((a,), params, added[a]) for a in added}
    for path, layers in (("conv", 1), ("depthwise", 1), ("blocks/attn/qkv", 2)):

        def at(tree: Any, path: str = path) -> Any:
            for name in path.split("/"):
                tree = tree[name]
            return tree

        kernel = np.asarray(at(params)["kernel"], np.float64)
        matrices = kernel.reshape(layers, -1, kernel.shape[-1])
        for adapter in (LORA, DORA):
            node = {k: np.asarray(x, np.float64) for k, x in at(added[adapter]).items()}
            a = node["lora_a"].reshape(layers, -1, 3)
            b = node["lora_b"].reshape(layers, 3, -1)
            expected = matrices + 2.0 * a @ b
            if adapter.magnitude:
                norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (matrices, expected)]
                gain = node["dora_gain"].reshape(layers, 1, -1)
                expected = expected / norms[1] * norms[0] * (1 + gain)
            actual = np.asarray(at(merged[adapter])["kernel"]).reshape(expected.shape)
            np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)
    untouched = merged[LORA]["blocks"]["attn"]["qkv"]["bias"], merged[LORA]["head"]["kernel"]
    np.testing.assert_array_equal(untouched[0], params["blocks"]["attn"]["qkv"]["bias"])
    np.testing.assert_array_equal(untouched[1], params["head"]["kernel"])


def test_a_column_of_zeros_is_finite():
    params = {"fc": {"kernel": jnp.zeros((4, 3))}}
    adapter = Lora(pattern="fc", rank=2, magnitude=True)
    added = init_adapters((adapter,), params, jax.random.key(0))

    def total(added: Any) -> jax.Array:
        return jnp.sum(jnp.sin(merge_adapters((adapter,), params, added)["fc"]["kernel"]))

    for tree in (added, noisy(added)):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.grad(total)(tree)))


def test_errors():
    params = draw(SHAPES)
    key = jax.random.key(0)
    with pytest.raises(ConfigError, match="'fc1' applies to no kernel of the tower; kernels are b"):
        init_adapters((Lora("fc1"),), params, key)
    with pytest.raises(ConfigError, match="'conv' applies to no kernel"):
        init_adapters((LORA, Lora("conv")), params, key)
    with pytest.raises(
        ConfigError, match=r"rank=5 is above the rank of head/kernel of shape \(4, 5\)"
    ):
        init_adapters((Lora("head", rank=5),), params, key)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"rank": 0}, "rank is 0, expected a whole number >= 1"),
        ({"alpha": 0.0}, "alpha is 0.0, expected a number > 0"),
        ({"pattern": "("}, "expected a regular expression"),
    )
    for fields, words in wrong:
        with pytest.raises(ValueError, match=words):
            Lora(**fields)
