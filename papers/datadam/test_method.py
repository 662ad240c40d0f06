"""DataDAM: nothing to learn from the real images themselves; where it looks; what it teaches."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.datadam.evaluator import TrainedOnSynthetic, synthetic_batch
from papers.datadam.method import DataDam, attention_map
from papers.datadam.siamese import STRATEGIES, siamese_augment
from tests.evaluators.linear_dual import data as read
from vision.evaluate.evaluator import evaluate
from vision.models.plain_conv import PlainConv
from vision.parallel.mesh import Mesh
from vision.train.objective import Context, Variables

NET = PlainConv(width=4, depth=2, num_classes=3)
DAM = DataDam(NET, num_classes=3, per_class=2, strategies=("crop", "colour"))


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype(np.float32)
    label = np.array([0, 0, 1, 1, 2, 2, 1, 0, 2], np.int32)
    given = {"image": image, "label": label, "_mask": np.arange(9) < 6}
    return {name: jnp.asarray(x) for name, x in given.items()}


@functools.partial(jax.jit, static_argnums=0)
def loss(objective: DataDam, pixels: Any, data: Any) -> tuple[Any, Any]:
    ctx = Context(jnp.int32(0), 1, train=True, key=jax.random.key(4))
    return objective.loss(Variables({"images": {"pixels": pixels}}, {}, {}), data, ctx)


def test_it_begins_with_real_images_and_those_have_nothing_to_learn():
    data = batch()
    begun = DAM.init_from_batch(DAM.init(jax.random.key(0), data), data, jax.random.key(1))
    pixels = begun.params["images"]["pixels"]
    np.testing.assert_array_equal(pixels.reshape(6, 8, 8, 3), data["image"][:6])
    value, aux = loss(DAM, pixels, data)
    np.testing.assert_allclose(value, 0, atol=1e-8)
    assert aux.weight == 3
    other, aux = loss(DAM, pixels[::-1], data)
    assert other > 1
    features, _ = loss(dataclasses.replace(DAM, attention=False), pixels[::-1], data)
    np.testing.assert_allclose(features, 100 * 0.01 * aux.metrics["features"], rtol=1e-6)
    rest = 100 * aux.metrics["attention"]
    np.testing.assert_allclose(other, features + rest, rtol=1e-5)


def test_classes_that_a_batch_lacks_do_not_pull():
    data = batch()
    data["_mask"] = data["label"] < 2
    slope = jax.grad(lambda x: loss(DAM, x, data)[0])(jnp.ones((3, 2, 8, 8, 3)) * 0.1)
    assert not np.any(slope[2])
    noise = DAM.init(jax.random.key(0), data)
    begun = DAM.init_from_batch(noise, data, jax.random.key(1)).params["images"]["pixels"]
    np.testing.assert_array_equal(begun[2], noise.params["images"]["pixels"][2])


def test_attention_has_unit_length_and_does_not_know_the_order_of_channels():
    x = jnp.asarray(np.random.default_rng(1).random((2, 3, 4, 5)) * 1e-6)
    found = attention_map(x, 4.0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found, attention_map(x[..., ::-1], 4.0), rtol=1e-5)
    plain = (np.asarray(x, np.float64) ** 4).sum(-1).reshape(2, -1)
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1)[:, None], rtol=1e-5)
    assert np.isfinite(attention_map(jnp.zeros((1, 2, 2, 3)), 4.0)).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_augmentation_treats_all_images_alike(strategy: str):
    x = jnp.asarray(np.random.default_rng(2).random((3, 8, 8, 3)), jnp.float32)
    key = jax.random.key(5)
    every = siamese_augment(x, key, (strategy,))
    np.testing.assert_allclose(every[1:2], siamese_augment(x[1:2], key, (strategy,)), rtol=1e-5)
    assert every.shape == x.shape
    changed = [siamese_augment(x, jax.random.key(k), (strategy,)) for k in range(4)]
    assert any(not np.allclose(each, x) for each in changed)
    with pytest.raises(ValueError, match="none of colour"):
        siamese_augment(x, key, ("blur",))
    assert siamese_augment(x, key, ()) is x


def test_networks_learn_from_what_is_synthetic_and_are_asked_about_what_is_real():
    rng = np.random.default_rng(3)
    label = (np.arange(30) % 3).astype(np.int32)
    image = 0.3 * rng.normal(size=(30, 3, 4, 1)).astype(np.float32)
    image[np.arange(30), label] += 2
    pixels = jnp.stack([jnp.asarray(image[label == c].mean(0))[None] for c in range(3)])
    variables = Variables({"images": {"pixels": pixels}}, {}, {})
    net = PlainConv(width=4, depth=1, num_classes=3)
    asked = TrainedOnSynthetic(read(image=image, label=label), net, 2, 100, 0.1, strategies=())
    mesh = Mesh().build(jax.devices()[:1])
    numbers, _ = evaluate(asked, lambda v, b: {}, variables, 0, mesh)
    assert numbers["top1"] > 0.8
    assert (numbers["networks"], numbers["examples"]) == (2, 30)
    assert synthetic_batch(pixels)["label"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="needs a network 'images'"):
        evaluate(asked, lambda v, b: {}, Variables({"model": {}}, {}, {}), 0, mesh)
