"""Groups of patches: the written formula, and what is left of it at its edges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.grouping import Grouping
from vision.blocks.similarity import ContrastError, unit


def random_inputs(patches: int = 5, texts: int = 3) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.normal(size=(4, patches, 6)), jnp.float32)
    return tokens, unit(jnp.asarray(rng.normal(size=(4, texts, 6))))


def gradients(grouping: Grouping, *given: jax.Array) -> list[np.ndarray]:
    def f(tokens: jax.Array, texts: jax.Array) -> jax.Array:
        return jnp.sum(grouping.gather(tokens, texts) * jnp.arange(6.0))

    return [np.asarray(g) for g in jax.jit(jax.grad(f, (0, 1)))(*given)]


@pytest.mark.parametrize(("threshold", "prefix"), [(0.4, 0), (None, 2)])
def test_the_written_formula(threshold: float | None, prefix: int):
    tokens, texts = random_inputs()
    actual = Grouping(threshold=threshold, prefix=prefix).gather(tokens, texts)
    selected = []
    for b in range(4):
        patches = np.asarray(tokens[b, prefix:], np.float64)
        patches /= np.linalg.norm(patches, axis=1, keepdims=True)
        for k in range(3):
            s = patches @ np.asarray(texts[b, k])
            s = (s - s.min()) / (s.max() - s.min())
            s[s < (threshold or 1 / len(patches))] = 0
            selected.append((s > 0).sum())
            u = s / s.sum() @ patches
            np.testing.assert_allclose(actual[b, k], u / np.linalg.norm(u), rtol=1e-5, atol=1e-6)
    assert min(selected) < max(selected)  # the threshold does something
    # Gradients flow through the weights too: texts have one.
    assert all(np.isfinite(g).all() and g.any() for g in gradients(Grouping(), tokens, texts))


def test_a_single_patch_is_its_own_group():
    tokens, texts = random_inputs(patches=1)
    actual = Grouping().gather(tokens, texts)
    np.testing.assert_allclose(actual, jnp.broadcast_to(unit(tokens), actual.shape), rtol=1e-6)
    assert not gradients(Grouping(), tokens, texts)[1].any()
    equal = jnp.broadcast_to(tokens, (4, 5, 6))
    np.testing.assert_allclose(Grouping().gather(equal, texts), actual, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients(Grouping(), equal, texts))


def test_a_threshold_above_one_selects_nothing():
    given = random_inputs()
    assert not np.any(Grouping(threshold=1.1).gather(*given))
    assert not any(g.any() for g in gradients(Grouping(threshold=1.1), *given))


def test_values_and_widths_are_checked():
    for make, message in (
        (lambda: Grouping(weight=-1.0), "weight is -1.0"),
        (lambda: Grouping(threshold=-0.1), "threshold is -0.1"),
        (lambda: Grouping(prefix=-1), "prefix is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    tokens, texts = random_inputs()
    with pytest.raises(ContrastError, match="4 numbers and text vectors 6"):
        Grouping().gather(tokens[..., :4], texts)
