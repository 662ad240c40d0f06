"""Tuning with descriptions: the loss, its schedule, and classes by mean probability."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.adaptclipzs.config import get_config
from papers.adaptclipzs.method import (
    DescribedZeroShot,
    WarmRestarts,
    mean_probability,
)
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.blocks.contrast import Softmax
from vision.blocks.sharded_contrast import Modality, compare
from vision.blocks.similarity import Dot, unit
from vision.config.specs import build
from vision.data.ops.classes import LabelToCaption
from vision.data.source import DataError
from vision.train.schedule import TrainLength


def test_with_one_image_per_class_the_loss_is_twice_that_of_clip():
    keys = jax.random.split(jax.random.key(1))
    image, text = (unit(jax.random.normal(key, (8, 6))) for key in keys)
    valid, label = jnp.ones(8, bool), jnp.arange(8)[::-1]

    def loss(weights, key):
        sides = (Modality({"embedding": x}, key, valid) for x in (image, text))
        criterion = Softmax(weights=weights)
        scale = jnp.float32(9), jnp.float32(0)
        return float(jax.jit(lambda *x: compare(criterion, Dot(), scale, *x).loss)(*sides))

    assert loss((1.0, 1.0), label) == pytest.approx(2 * loss((0.5, 0.5), jnp.arange(8)), rel=1e-6)


def test_the_rates_are_those_of_the_authors_three_groups():
    optimizer = build(get_config().optimizer)
    params = {
        "model": {
            "image": {"blocks": {"mlp": {"fc1": {"kernel": jnp.zeros((2, 2))}}}},
            "image_projection": {"kernel": jnp.zeros((2, 2))},
            "text_projection": {"kernel": jnp.zeros((2, 2))},
        },
        "contrast": {"temperature": jnp.zeros(())},
    }
    found = jax.tree.map(lambda m: m * optimizer.learning_rate, optimizer.multipliers(params))
    assert found["model"]["image"]["blocks"]["mlp"]["fc1"]["kernel"] == pytest.approx(5e-7)
    for name in ("image_projection", "text_projection"):
        assert found["model"][name]["kernel"] == pytest.approx(1e-7)
    # The authors learn 100 times our number, with a rate that is 100 times ours.
    assert found["contrast"]["temperature"] == pytest.approx(1e-2 / 100)


def test_restarts():
    train_length = TrainLength(num_examples=10, batch_size=2, total_steps=35)
    schedule = WarmRestarts("2 epochs", factor=2)
    rates = np.asarray([schedule(jnp.int32(step), train_length) for step in range(35)])
    np.testing.assert_allclose(rates[[0, 5, 10, 20, 30]], [1, 0.5, 1, 0.5, 1], atol=1e-6)
    assert (np.diff(rates)[[9, 29]] > 0).all()
    assert (np.delete(np.diff(rates), [9, 29]) < 0).all()


def test_mean_probability():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    owner = np.array([0, 0, 0, 1, 1])
    chances = np.exp(2 * images @ texts.T)
    chances /= chances.sum(1, keepdims=True)
    by_hand = np.stack([chances[:, :3].mean(1), chances[:, 3:].mean(1)], 1)
    np.testing.assert_allclose(mean_probability(images, texts, owner, 2.0), by_hand)
    # One text per class: the classes of zero-shot, and probabilities.
    one = mean_probability(images, texts, np.arange(5), 2.0)
    np.testing.assert_allclose(one, chances)


def test_classes_are_told_by_their_sentences_and_chosen_among_some():
    say = LabelToCaption(
        ("cat", "dog", "gnu"), ("a {}.",), (("red",), ("blue", "round"), ("tall",))
    )
    rng = np.random.default_rng(1)
    label = rng.integers(-1, 3, 40).astype(np.int32)
    bank = [texts_of(list(texts)) for texts in say.texts]
    image = np.stack([bank[max(y, 0)][0] for y in label]) + 0.3 * rng.normal(size=(40, 1))
    given = data(image=image, label=label)
    for among in ((), (2, 1)):
        chosen = among or (0, 1, 2)
        metrics = run(DescribedZeroShot(given, TOKENIZER, say, among, text_batch=8))
        texts = np.concatenate([bank[y] for y in chosen])
        owner = np.repeat(np.arange(len(chosen)), [len(bank[y]) for y in chosen])
        counted = np.isin(label, chosen)
        unit_images = image / np.linalg.norm(image, axis=1, keepdims=True)
        correct = (
            np.asarray(chosen)[mean_probability(unit_images[counted], texts, owner).argmax(1)]
            == label[counted]
        )
        assert metrics["top1"] == correct.mean()
        assert metrics["examples"] == counted.sum()
        assert metrics["texts"] == len(texts)
    with pytest.raises(DataError, match=r"3 is not a class in 0\.\.2"):
        run(DescribedZeroShot(given, TOKENIZER, say, (3,)))
