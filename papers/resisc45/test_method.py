"""RESISC45: parts have their share of every class, words and colours are those of numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.resisc45.features import colour_histogram, patches_of, word_counts
from papers.resisc45.method import RepeatedShares, stratified_fraction, svm_accuracy
from tests.models.tower_cases import quick_jit
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.evaluate.figures import ConfusionMatrix
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 9, 8, 3)).astype(np.float32)


def test_every_class_has_its_share_once_and_by_the_seed():
    labels = RNG.permutation(np.repeat([0, 1, 4], (40, 10, 3)))
    part = stratified_fraction(labels, 0.2, 7)
    assert np.bincount(labels[part]).tolist() == [8, 2, 0, 0, 1]
    np.testing.assert_array_equal(part, stratified_fraction(labels, 0.2, 7))
    assert not np.array_equal(part, stratified_fraction(labels, 0.2, 8))
    with pytest.raises(DataError, match="class 4 has 3 records: share="):
        stratified_fraction(labels, 0.9, 0)


def test_colours_are_shares_of_pixels():
    got = np.asarray(quick_jit(colour_histogram)(IMAGES))
    for n, image in enumerate(IMAGES):
        wanted = [np.histogram(image[..., c], 8, (0, 1))[0] / 72 for c in range(3)]
        np.testing.assert_allclose(got[n], np.concatenate(wanted), atol=1e-6)
    np.testing.assert_allclose(colour_histogram(jnp.full((1, 2, 2, 1), 1.5))[0], [0] * 7 + [1])


def test_words_are_the_nearest_centres_in_the_whole_and_in_quarters():
    patches = np.asarray(patches_of(jnp.asarray(IMAGES), 3, 2))
    grey = IMAGES.mean(-1)
    places = [(y, x) for y in range(0, 7, 2) for x in range(0, 6, 2)]
    by_hand = np.stack([[g[y : y + 3, x : x + 3].ravel() for y, x in places] for g in grey])
    by_hand -= by_hand.mean(-1, keepdims=True)
    by_hand /= np.sqrt(by_hand.var(-1, keepdims=True) + 10 / 255**2)
    np.testing.assert_allclose(patches, by_hand, atol=1e-4)
    centres = jnp.asarray(patches.reshape(-1, 9)[::9])
    got = np.asarray(word_counts(jnp.asarray(IMAGES), centres, 3, 2)) ** 2
    distance = ((patches[:, :, None] - np.asarray(centres)) ** 2).sum(-1)
    words = distance.argmin(-1).reshape(3, 4, 3)
    quarters = (words, words[:, :2, :1], words[:, :2, 1:], words[:, 2:, :1], words[:, 2:, 1:])
    wanted = [[np.bincount(p.ravel(), minlength=4) / p.size for p in part] for part in quarters]
    np.testing.assert_allclose(got, np.concatenate(wanted, 1), atol=1e-5)
    np.testing.assert_allclose(got[:, :4].sum(1), 1, rtol=1e-5)


def test_accuracy_does_not_depend_on_the_scale_of_features():
    labels = np.arange(60) % 3
    x = np.eye(3)[labels] + 0.4 * RNG.normal(size=(60, 3))
    learned = stratified_fraction(labels, 0.5, 0)
    accuracy, answers = svm_accuracy(x, labels, learned, (1.0, 10.0))
    assert accuracy == np.mean(answers == labels[~learned]) > 0.8
    assert svm_accuracy(1000 * x, labels, learned, (1.0, 10.0))[0] == pytest.approx(accuracy)


def test_shares_of_a_source():
    label = (np.arange(40) % 2).astype(np.int32)
    label[7] = -1
    image = RNG.uniform(-1, 1, (40, 8, 8, 3)).astype(np.float32)
    image[label == 1] = np.clip(image[label == 1] + 0.8, -1, 1)
    source = Arrays({"image": image, "label": label}, "made", ("dark", "light"))

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        return {"embedding": batch["image"].mean((1, 2))}

    def run(**more: Any) -> Any:
        data = EvalData(source, batch_size=20, threads=0)
        evaluator = RepeatedShares(data, repeats=2, words=4, patch=4, c=(10.0,), **more)
        mesh = Mesh().build(jax.devices()[:1])
        return evaluate(evaluator, predict, Variables({}, {}, {}), 1, mesh)

    numbers, figures = run(shares=(0.2, 0.5))
    assert numbers["tower_20"] == numbers["tower_50"] == numbers["colour_50"] == 1
    assert numbers["tower_20_std"] == 0
    assert 0 < numbers["words_50"] <= 1
    assert (numbers["examples"], numbers["unlabelled"]) == (39, 1)
    confusion = figures["confusion"]
    assert isinstance(confusion, ConfusionMatrix)
    assert np.asarray(confusion.counts).tolist() == [[10, 0], [0, 9]]
    with pytest.raises(DataError, match="leaves none to ask"):
        run(shares=(0.99,))
