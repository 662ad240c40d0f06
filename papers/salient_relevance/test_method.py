"""Salience of a map: an odd one stands out, alike ones do not; the map that it starts from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.salient_relevance.method import (
    Relevance,
    SalientRelevance,
    distances,
    resized,
)
from vision.blocks.relevance import Lrp

FULL = SalientRelevance(side_px=16, patch_px=3, scales=(1.0,), nearest=8)


def test_salience_by_its_definition():
    """Loops over all pairs of places, one scale."""
    image = np.random.default_rng(0).random((6, 8, 2)).astype(np.float32)
    computed = np.asarray(jax.jit(FULL.saliency)(image))
    wide = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    patches = {(i, j): wide[i : i + 3, j : j + 3] for i, j in np.ndindex(6, 8)}
    value = {(a, b): np.linalg.norm(patches[a] - patches[b]) for a in patches for b in patches}
    most = max(value.values())
    expected = np.zeros((6, 8))
    for a in patches:
        apart = [
            value[a, b] / most / (1 + 3 * np.hypot(a[0] - b[0], a[1] - b[1]) / np.hypot(5, 7))
            for b in patches
            if b != a
        ]
        expected[a] = 1 - np.exp(-np.mean(sorted(apart)[:8]))
    foci = np.argwhere(expected >= 0.8 * expected.max())
    for a in patches:
        near = np.hypot(*(foci - a).T).min() / np.hypot(5, 7)
        expected[a] *= 1 - near
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-6)


def test_an_odd_place_stands_out_and_a_flat_map_does_not():
    image = np.zeros((16, 16, 1), np.float32)
    image[10:12, 4:6] = 1
    saliency = jax.jit(FULL.saliency)
    salience = np.asarray(saliency(image))
    y, x = np.unravel_index(salience.argmax(), salience.shape)
    assert 9 <= y <= 12
    assert 3 <= x <= 6
    assert salience[:6, 8:].max() < 0.2 * salience.max()
    assert not np.asarray(saliency(jnp.full((16, 16, 1), 0.3))).any()
    assert distances(3, 4).max() == 1


def test_the_map_is_relevance_and_any_size_comes_back():
    slopes = jnp.asarray([1.0, -2.0, 0.0])

    def asked(images: jax.Array, tap: object = None) -> jax.Array:
        return (images.reshape(len(images), -1, 3).mean(1) * slopes).sum(-1)

    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 10, 14, 3)), jnp.float32)
    made = SalientRelevance(Relevance(Lrp()), 7, 3, scales=(1.0, 0.5), nearest=8)

    @jax.jit
    def both(images: jax.Array) -> tuple[jax.Array, ...]:
        heat = made.relevance.heat(asked, images)
        saliency = jax.lax.map(made.saliency, resized(heat, (5, 7)))
        return heat, made(asked, images), resized(saliency[..., None], (10, 14))[..., 0]

    heat, maps, again = map(np.asarray, both(images))
    expected = np.abs(images * slopes)
    np.testing.assert_allclose(heat, expected / expected.max((1, 2, 3), keepdims=True), atol=1e-5)
    assert maps.shape == (2, 10, 14)
    assert (maps >= 0).all()
    np.testing.assert_allclose(maps, again, atol=1e-5)
    with pytest.raises(ValueError, match="patch_px"):
        SalientRelevance(patch_px=4)
