"""Views, descriptors and the evaluator of off-the-shelf features."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import LinearSVC

from papers.cnn_off_the_shelf.method import OffTheShelf
from papers.cnn_off_the_shelf.retrieval import Descriptor, patch_distances
from papers.cnn_off_the_shelf.views import VIEWS, views
from tests.evaluators.linear_dual import data, run

RNG = np.random.default_rng(0)


def test_views_are_the_image_its_parts_its_turns_and_their_mirrors():
    ramp = np.broadcast_to(np.arange(9.0)[None, :, None], (9, 9, 1))
    image = np.stack([*RNG.normal(size=(2, 9, 9, 1)), np.ones((9, 9, 1)), ramp]).astype(np.float32)
    stacked = np.asarray(jax.jit(views)(image))
    assert stacked.shape == (4, VIEWS, 9, 9, 1)
    np.testing.assert_array_equal(stacked[:, 0], image)
    np.testing.assert_array_equal(stacked[:, 8:], stacked[:, :8, :, ::-1])
    corner = jax.image.resize(jnp.asarray(image[:, :6, 3:]), image.shape, "bilinear")
    np.testing.assert_allclose(stacked[:, 2], corner, atol=1e-5)
    # Turned one way and the other: the centre stays, even pictures stay whole, and lines lean.
    np.testing.assert_allclose(stacked[:, 6:8, 4, 4], np.stack([image[:, 4, 4]] * 2, 1), atol=1e-5)
    np.testing.assert_allclose(stacked[2], 1, atol=1e-5)
    steps = np.diff(stacked[3, 7, 4, 2:7, 0])
    np.testing.assert_allclose(steps, np.cos(np.deg2rad(10)), atol=1e-4)


def examples(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count).astype(np.int32)
    image = np.eye(3, 12)[label] + 0.5 * rng.normal(size=(count, 12))
    return {"image": image.astype(np.float32), "label": label}


def test_without_views_it_is_scikit_learn_on_features_of_length_one():
    train, test = examples(120, 0), examples(80, 1)
    got = run(OffTheShelf(data(**train), data(**test)))
    x, y = (
        each["image"] / np.linalg.norm(each["image"], axis=1)[:, None] for each in (train, test)
    )
    primal: Any = False
    peer = LinearSVC(C=got["c"], dual=primal, tol=1e-9).fit(x, train["label"])
    correct = peer.predict(y) == test["label"]
    assert got["top1"] == pytest.approx(correct.mean())
    each = [correct[test["label"] == k].mean() for k in range(3)]
    assert got["class_accuracy"] == pytest.approx(np.mean(each))
    assert 0.8 < got["map"] <= 1
    assert got["examples"] == 80


def test_views_add_their_scores():
    """Mirrored images look alike to a model that sees both halves as one."""
    train, test = examples(60, 0), examples(40, 1)
    got = run(OffTheShelf(data(**train), data(**test), augment=True, c=(1.0,), power=0.5), 8)
    assert got["top1"] > 0.5
    assert got["examples"] == 40
    for arguments, name in (({"c": ()}, "c is"), ({"power": 0.0}, "power")):
        bad: Any = arguments
        with pytest.raises(ValueError, match=name):
            OffTheShelf(data(**train), data(**test), **bad)


def test_descriptors_ignore_length_and_patches_find_their_nearest():
    x = RNG.normal(size=(50, 8))
    describe = Descriptor.fit(x, 4)
    np.testing.assert_allclose(describe(3 * x), describe(x), atol=1e-6)
    np.testing.assert_allclose(np.abs(describe(x)).sum(1) > 1, True)
    np.testing.assert_allclose((describe(x) ** 4).sum(1), 1, atol=1e-5)  # squares of unit vectors
    query, reference = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(5, 6, 4))
    distances = patch_distances(query, reference)
    slow = np.mean([min(np.linalg.norm(p - r) for r in reference[4]) for p in query[1]])
    assert distances[1, 4] == pytest.approx(slow, rel=1e-5)
    assert patch_distances(reference, reference).diagonal().max() == 0
