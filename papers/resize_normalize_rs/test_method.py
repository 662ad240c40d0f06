"""Encoders without training, neighbours, and the grid of sizes and normalisations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from sklearn.neighbors import KNeighborsClassifier

from papers.resize_normalize_rs.encoders import Mosaiks, image_stats, neighbours_top1, patches
from papers.resize_normalize_rs.method import ResizeNormalize
from tests.evaluators.linear_dual import data, run
from vision.probes.linear import FitError

RNG = np.random.default_rng(0)


def test_random_convolutions_are_means_of_both_signs():
    image = RNG.normal(size=(2, 6, 5, 2)).astype(np.float32)
    made = Mosaiks.gaussian(2, 4, seed=1)
    features = np.asarray(jax.jit(made.__call__)(image))
    assert features.shape == (2, 8)
    slow = sum(correlate2d(image[1, ..., c], made.kernel[..., c, 3], "valid") for c in range(2))
    assert features[1, 3] == pytest.approx(np.maximum(slow, 0).mean(), rel=1e-4)
    assert features[1, 7] == pytest.approx(np.maximum(-slow, 0).mean(), rel=1e-4)
    assert (Mosaiks.gaussian(2, 4, seed=1).kernel == made.kernel).all()


def test_patches_are_cut_out_and_whitened():
    image = RNG.normal(size=(300, 5, 6, 1)).astype(np.float32)
    cut = np.asarray(jax.jit(patches)(image, np.arange(300)))
    at = (7919 * 4) % 12
    np.testing.assert_array_equal(cut[4], image[4, at // 4 :][:3, at % 4 :][:, :3].ravel())
    smooth = cut @ (np.eye(9) + 0.8 * np.eye(9, k=1)) + 3
    made = Mosaiks.of_patches(smooth, 1, floor=1e-9)
    assert made.kernel.shape == (3, 3, 1, 300)
    responses = smooth @ made.kernel.reshape(9, 300) + made.bias
    # Each whitened patch has unit variance along any filter of length one.
    np.testing.assert_allclose(responses.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(responses.std(0), 1, atol=1e-3)


def test_statistics_and_neighbours():
    image = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    flat = image.reshape(3, 16, 2)
    slow = np.concatenate([flat.mean(1), flat.std(1), flat.min(1), flat.max(1)], 1)
    np.testing.assert_allclose(jax.jit(image_stats)(image), slow, atol=1e-6)
    x, y = RNG.normal(size=(90, 5)), RNG.normal(size=(40, 5))
    labels = RNG.integers(0, 4, 90)
    peer = KNeighborsClassifier(5).fit(x, labels)
    np.testing.assert_array_equal(neighbours_top1(x, labels, y, 5), peer.predict(y))
    with pytest.raises(FitError, match="k=91: there are 90"):
        neighbours_top1(x, labels, y, 91)


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    image = batch["image"]
    return {"embedding": jnp.concatenate([image.mean((1, 2)), image[:, 0, 0], image[:, 1, 2]], 1)}


def pictures(count: int, seed: int, gain: float = 1.0, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count).astype(np.int32)
    image = rng.normal(size=(count, 12)) + label[:, None]
    return {"image": (gain * image + shift).astype(np.float32), "label": label}


def grid(**changes: Any) -> ResizeNormalize:
    train, test = pictures(60, 0), pictures(40, 1)
    given: dict[str, Any] = {"sizes": (0, 8), "filters": 20, "divisor": 1.0, **changes}
    gain, shift = given.pop("gain", 1.0), given.pop("shift", 0.0)
    if gain != 1 or shift:
        train, test = pictures(60, 0, gain, shift), pictures(40, 1, gain, shift)
    return ResizeNormalize(data(**train), data(**test), **given)


def test_standardised_images_do_not_know_their_gain_and_shift():
    asked = {"normalisations": ("divide", "standardise", "min_max"), "sizes": (0,)}
    first = run(grid(**asked), 1, predict)
    second = run(grid(gain=8.0, shift=300.0, **asked), 1, predict)
    for encoder in ("tower", "image_stats", "mosaiks"):
        assert first[f"{encoder}_native_standardise_top1"] > 0.5
        for normalisation in ("standardise", "min_max"):
            name = f"{encoder}_native_{normalisation}_top1"
            assert second[name] == pytest.approx(first[name], abs=1.5 / 40), name


def test_the_grid_says_what_resizing_adds():
    got = run(grid(normalisations=("standardise",), gaussian=True), 8, predict)
    for encoder in ("tower", "image_stats", "mosaiks"):
        gain = got[f"{encoder}_8px_standardise_top1"] - got[f"{encoder}_native_standardise_top1"]
        assert got[f"{encoder}_standardise_delta"] == pytest.approx(gain)
    assert got["examples"] == 40
    assert len(got["sizes"].lines) == 3
    for arguments in ({"sizes": ()}, {"encoders": ("resnet",)}, {"normalisations": ()}, {"k": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            grid(**arguments)
