"""Several image sizes within one run: the drawn size trains as it would alone, on any mesh."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.patch_tower import PatchTower
from vision.data.batch_views import MixedResolution
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Constant, TrainLength
from vision.train.state import digest, step_key
from vision.train.step import Step

ROWS, TOTAL = 8, 12
MIXED = MixedResolution(sizes=(8, 16), weights=(1.0, 2.0))


def make(shapes: MixedResolution | None) -> Step:
    model = PatchTower(num_classes=5)  # of images of any size
    optimizer = Optimizer(sgd(), 0.1, Constant())
    train_length = TrainLength(num_examples=160, batch_size=ROWS, total_steps=TOTAL)
    return Step(Classify(model), optimizer, train_length, batch_shapes=shapes)


def batch(number: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "image": rng.normal(size=(ROWS, 16, 16, 3)).astype(np.float32),
        "label": rng.integers(0, 5, ROWS).astype(np.int32),
        "_mask": np.ones(ROWS, bool),
        "_index": np.arange(ROWS, dtype=np.int32),
    }


def compiled(sizes: MixedResolution | None, devices: int = 1):
    shapes = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in batch().items()}
    return compile_step(make(sizes), shapes, Mesh().build(jax.devices()[:devices]))


@pytest.fixture(scope="module")
def mixed():
    return compiled(MIXED)


def drawn(key: jax.Array, step: int) -> int:
    k_shape = jax.random.fold_in(jax.random.split(step_key(key, jnp.int32(step)))[0], 0)
    return int(MIXED.choose(k_shape, jnp.int32(step), TOTAL))


def test_a_step_is_that_of_the_size_it_drew(mixed):
    state, sizes, plain = mixed.init(), set(), jax.jit(make(None).update)
    for number in range(5):
        shape = drawn(state.key, number)
        sizes.add(shape)
        shaped = MIXED.reshape({n: jnp.asarray(x) for n, x in batch(number).items()}, shape)
        alone, metrics = plain(state, shaped)
        state, found = mixed.update(state, batch(number))
        np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            state.params,
            alone.params,
        )
    assert len(sizes) > 1


def test_the_draw_follows_from_the_step_alone(mixed):
    def run(first: int, state):
        for number in range(first, 6):
            state, _ = mixed.update(state, batch(number))
            if number == 2:
                kept = jax.tree.map(np.array, state)
        return digest(state), kept if first == 0 else None

    whole, kept = run(0, mixed.init())
    shardings = jax.tree.map(lambda x: x.sharding, mixed.abstract)
    assert run(3, jax.device_put(kept, shardings))[0] == whole


def test_eight_devices_draw_alike(mixed):
    many = compiled(MIXED, 8)
    mesh = Mesh().build(jax.devices()[:8])
    one, all_, sizes = mixed.init(), many.init(), set()
    for number in range(4):
        sizes.add(drawn(one.key, number))
        one, found = mixed.update(one, batch(number))
        all_, same = many.update(all_, to_device(batch(number), mesh))
        np.testing.assert_allclose(found["loss"], same["loss"], rtol=1e-5)
    assert len(sizes) > 1


def test_flops_are_the_mean_over_sizes_by_their_shares(mixed):
    def work(sizes: MixedResolution | None) -> int:
        return make(sizes).flops(mixed.abstract, batch())  # pyright: ignore[reportArgumentType]

    alone = [work(MixedResolution(sizes=(size,))) for size in MIXED.sizes]
    assert alone[0] < alone[1] == work(None)
    assert work(MIXED) == pytest.approx(np.dot(MIXED.shares, alone), abs=1)


def test_sizes_are_drawn_by_their_weights_or_come_in_turn():
    keys = jax.random.split(jax.random.key(0), 4000)
    found = jax.vmap(lambda key: MIXED.choose(key, jnp.int32(0), TOTAL))(keys)
    np.testing.assert_allclose(np.bincount(found) / 4000, MIXED.shares, atol=0.03)
    turn = dataclasses.replace(MIXED, order="in_turn")
    order = [int(turn.choose(keys[0], jnp.int32(step), TOTAL)) for step in range(TOTAL)]
    assert order == [0] * 4 + [1] * 8


def test_bytes_stay_bytes_and_other_features_stay():
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    given = {"image": jnp.asarray(image), "label": jnp.arange(2)}
    small = MIXED.reshape(given, 0)
    assert small["image"].shape == (2, 8, 8, 3)
    assert small["image"].dtype == jnp.uint8
    assert small["label"] is given["label"]
    constant = MIXED.reshape({"image": jnp.full((1, 16, 16, 3), 77, jnp.uint8)}, 0)["image"]
    assert (constant == 77).all()
    assert MIXED.reshape(given, 1)["image"] is given["image"]
    with pytest.raises(ValueError, match="none of image; it has label"):
        MIXED.reshape({"label": given["label"]}, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": ()}, r"sizes is \(\), expected .*not empty"),
        ({"sizes": (8, 0)}, r"sizes\[1\] is 0, expected a whole number >= 1"),
        ({"weights": (1.0,)}, "a number for each"),
        ({"weights": (1.0, 0.0)}, r"weights\[1\] is 0.0, expected a finite number > 0"),
        ({"order": "up"}, "order is 'up', expected one of"),
        ({"method": "area"}, "method is 'area', expected one of"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MIXED, **changes)
