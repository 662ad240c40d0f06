"""Features of a diffusion model: pooling, noise by record, and the sweep as single probes say."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.diffusion_cls.evaluator import DiffusionProbe
from papers.diffusion_cls.method import features, pooled
from vision.blocks.diffusion import Diffusion, row_noise
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.evaluators.features.probe import RidgeProbe
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
DIFFUSION = Diffusion(100)
NOTHING = Variables({}, {}, {})


def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
    """A denoiser without parameters: one block says what it sees, another only how late it is."""
    image = batch["image"]
    late = jnp.broadcast_to(jnp.asarray(batch["time"]), image.shape[:1])
    return {"block00": image, "block01": image * 0 + late[:, None, None, None], "noise": image}


def digits(count: int, seed: int) -> EvalData:
    """Two classes, light above or light below."""
    label = np.arange(count) % 2
    rows = np.random.default_rng(seed).normal(0, 0.05, (count, 4, 4, 1)).astype(np.float32)
    rows[label == 0, :2] += 1
    rows[label == 1, 2:] += 1
    arrays = {"image": rows, "label": label.astype(np.int32)}
    return EvalData(Arrays(arrays, f"two {seed}", ("above", "below")), batch_size=16, threads=0)


def test_pooling_is_the_mean_of_boxes():
    x = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)
    every = jax.jit(lambda x: [pooled(x, size) for size in (2, 1, 8, 4)])
    two, one, eight, four = map(np.asarray, every(x))
    means = two.reshape(2, 2, 2, 3)
    np.testing.assert_allclose(means[0, 1, 0], x[0, 2:, :3].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(one, x.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(eight, x.reshape(2, -1))
    assert four.shape == (2, 4 * 4 * 3)


def test_the_noise_is_the_records_own():
    image = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32)
    index = np.array([5, 1, 8], np.int32)

    @jax.jit
    def of(batch: Any) -> Any:
        return features(predict, NOTHING, batch, DIFFUSION, 40, pool=4)

    @jax.jit
    def noised(image: jax.Array, index: jax.Array) -> jax.Array:
        noise = row_noise(jax.random.key(0), index, (4, 4, 1))
        return DIFFUSION.noised(image, jnp.int32(40), noise).reshape(3, -1)

    noised_features, expected = jax.device_get(
        (of({"image": image, "_index": index}), noised(image, index))
    )
    np.testing.assert_allclose(noised_features["block00"], expected, atol=1e-6)
    assert set(noised_features) == {"block00", "block01"}
    alone = {"image": image[1:2], "_index": index[1:2]}
    other = of(alone)
    np.testing.assert_allclose(other["block00"], noised_features["block00"][1:2], atol=1e-6)


def test_the_sweep_finds_the_step_and_the_block():
    probe = RidgeProbe(train=digits(60, 1), test=digits(40, 2), decays=(1e-2,))
    sweep = DiffusionProbe(probe, DIFFUSION, times=(5, 99), blocks=("block00", "block01"))
    numbers, figures = evaluate(sweep, predict, NOTHING, 0, Mesh().build(jax.devices()[:1]))
    assert numbers["t005_block00_top1"] == 1
    assert numbers["t005_block00_examples"] == 40
    assert numbers["t099_block00_top1"] < 0.8
    assert numbers["t005_block01_top1"] == 0.5
    assert (numbers["best_top1"], numbers["best_time"], numbers["best_block"]) == (1, 5, 0)
    first: Any = figures["sweep"]
    np.testing.assert_array_equal(first.lines[0].x, [5, 99])
    assert first.lines[0].y[0] == 1


def test_wrong_sweeps_are_named():
    probe = RidgeProbe(train=digits(20, 1), test=digits(20, 2))
    with pytest.raises(ValueError, match="times="):
        DiffusionProbe(probe, DIFFUSION, times=(100,))
    with pytest.raises(ValueError, match="pool"):
        DiffusionProbe(probe, DIFFUSION, times=(10,), pool=0)
