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
from papers.datadam.siamese import STRATEGIES, augment_by_class, siamese_augment
from tests.evaluators.linear_dual import data as read
from vision.evaluate.evaluator import evaluate
from vision.models.plain_conv import PlainConv
from vision.parallel.mesh import Mesh
from vision.train.objective import Context, Variables

NET = PlainConv(width=4, depth=2, num_classes=3)
DAM = DataDam(NET, num_classes=3, per_class=2, strategies=("colour",))


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype(np.float32)
    label = np.array([0, 0, 1, 1, 2, 2, 1, 0, 2], np.int32)
    given = {"image": image, "label": label, "_mask": np.arange(9) < 6}
    return given


@jax.jit
def learned(pixels: Any, data: Any) -> tuple[Any, Any, Any]:
    """Loss and the rest, the loss of features alone, and the gradient of the loss."""
    ctx = Context(jnp.int32(0), 1, train=True, key=jax.random.key(4))

    def loss(pixels: Any, objective: DataDam) -> tuple[Any, Any]:
        return objective.loss(Variables({"images": {"pixels": pixels}}, {}, {}), data, ctx)

    loss_and_aux, slope = jax.value_and_grad(loss, has_aux=True)(pixels, DAM)
    return loss_and_aux, loss(pixels, dataclasses.replace(DAM, attention=False))[0], slope


@jax.jit
def begun(data: Any) -> tuple[Any, Any]:
    """Pixels before and after the first batch was seen."""
    noise = DAM.init(jax.random.key(0), data)
    initialised = DAM.init_from_batch(noise, data, jax.random.key(1))
    return noise.params["images"]["pixels"], initialised.params["images"]["pixels"]


def test_it_begins_with_real_images_and_those_have_nothing_to_learn():
    data = batch()
    pixels = np.asarray(begun(data)[1])
    np.testing.assert_array_equal(pixels.reshape(6, 8, 8, 3), data["image"][:6])
    (value, aux), *_ = learned(pixels, data)
    np.testing.assert_allclose(value, 0, atol=1e-8)
    assert int(aux.weight) == 3
    (other, aux), features, _ = jax.device_get(learned(pixels[::-1], data))
    assert other > 1
    np.testing.assert_allclose(features, 100 * 0.01 * aux.metrics["features"], rtol=1e-6)
    rest = 100 * aux.metrics["attention"]
    np.testing.assert_allclose(other, features + rest, rtol=1e-5)


def test_classes_that_a_batch_lacks_do_not_pull():
    data = batch()
    data["_mask"] = data["label"] < 2
    slope = np.asarray(learned(np.full((3, 2, 8, 8, 3), 0.1, np.float32), data)[2])
    assert np.any(slope[:2])
    assert not np.any(slope[2])
    noise, pixels = map(np.asarray, begun(data))
    np.testing.assert_array_equal(pixels[2], noise[2])


def test_attention_has_unit_length_and_does_not_know_the_order_of_channels():
    x = (np.random.default_rng(1).random((2, 3, 4, 5)) * 1e-6).astype(np.float32)
    attention = jax.jit(functools.partial(attention_map, power=4.0))
    maps = np.asarray(attention(x))
    np.testing.assert_allclose(np.linalg.norm(maps, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(maps, attention(x[..., ::-1]), rtol=1e-5)
    plain = (np.asarray(x, np.float64) ** 4).sum(-1).reshape(2, -1)
    np.testing.assert_allclose(maps, plain / np.linalg.norm(plain, axis=1)[:, None], rtol=1e-5)
    assert np.isfinite(np.asarray(attention(np.zeros_like(x)))).all()


def test_augmentation_treats_all_images_alike():
    x = np.random.default_rng(2).random((3, 8, 8, 3)).astype(np.float32)

    @jax.jit
    def all_and_second(seed: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        key = jax.random.key(seed)
        return {
            strategy: (
                siamese_augment(jnp.asarray(x), key, (strategy,)),
                siamese_augment(jnp.asarray(x[1:2]), key, (strategy,)),
            )
            for strategy in STRATEGIES
        }

    seeds = [jax.device_get(all_and_second(seed)) for seed in range(4)]
    for strategy in STRATEGIES:
        for augmented in seeds:
            every, second = augmented[strategy]
            assert every.shape == x.shape
            np.testing.assert_allclose(every[1:2], second, rtol=1e-5, err_msg=strategy)
        assert any(not np.allclose(augmented[strategy][0], x) for augmented in seeds), strategy


def test_every_class_has_a_transform_of_its_own_and_real_and_synthetic_share_it():
    x = np.random.default_rng(4).normal(size=(1, 6, 6, 2)).astype(np.float32)
    real, label = np.repeat(x, 6, 0), np.asarray([0, 1, 2, 0, 1, 2])

    @jax.jit
    def both(key: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(
            augment_by_class(jnp.asarray(y), jnp.asarray(of), key, ("colour",))
            for y, of in ((real, label), (real[:3], label[:3]))
        )

    of_real, synthetic = jax.device_get(both(jax.random.key(1)))
    np.testing.assert_array_equal(of_real[:3], of_real[3:])
    np.testing.assert_array_equal(of_real[:3], synthetic)
    assert all(np.abs(synthetic[a] - synthetic[b]).max() > 0.1 for a, b in ((0, 1), (0, 2), (1, 2)))
    # A class's transform is what it is whoever else is there.
    alone = jax.jit(
        lambda key: siamese_augment(jnp.asarray(x), jax.random.fold_in(key, 2), ("colour",))
    )
    np.testing.assert_allclose(alone(jax.random.key(1))[0], synthetic[1], atol=1e-5)


def test_augmentations_that_are_none():
    x, key = jnp.zeros((1, 8, 8, 3)), jax.random.key(5)
    with pytest.raises(ValueError, match="none of colour"):
        siamese_augment(x, key, ("blur",))
    assert siamese_augment(x, key, ()) is x
    assert augment_by_class(x, jnp.zeros(len(x), jnp.int32), key, ()) is x


def test_networks_learn_from_what_is_synthetic_and_are_asked_about_what_is_real():
    rng = np.random.default_rng(3)
    label = (np.arange(30) % 3).astype(np.int32)
    image = 0.3 * rng.normal(size=(30, 3, 4, 1)).astype(np.float32)
    image[np.arange(30), label] += 2
    pixels = jnp.asarray(np.stack([image[label == c].mean(0)[None] for c in range(3)]))
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
