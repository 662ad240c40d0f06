"""SimpleNet: the paper's parameter counts, its layers, and what dropout does when."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from papers.simplenet.config import SLIM
from papers.simplenet.method import LAYERS, SimpleNet, early_pooling
from tests.tiny import drawn
from vision.train.tower import count_params

TINY = SimpleNet(layers=((4, 3), (6, 3), (8, 1)), pools=(2,), num_classes=5)
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)


def parameters(model: SimpleNet, shape: tuple[int, ...]) -> int:
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    made: Any = jax.eval_shape(lambda image: model.init(jax.random.key(0), image), image)
    return count_params(made["params"])


@pytest.fixture(scope="module")
def variables():
    return drawn(TINY.init, IMAGES)


@pytest.mark.parametrize(("variant", "published"), [("5m", 5.48e6), ("310k", 310e3)])
def test_as_many_parameters_as_published(variant: str, published: float):
    model = SimpleNet(variant=variant, num_classes=10)  # pyright: ignore[reportArgumentType]
    assert parameters(model, (32, 32, 3)) == pytest.approx(published, rel=0.015)


def test_the_rival_has_as_many_parameters_as_the_slim_network():
    rival = SimpleNet(layers=early_pooling(SLIM, 10), pools=(1, 2), num_classes=10)
    slim = SimpleNet(variant="310k", pools=(4, 9), num_classes=10)
    assert parameters(rival, (8, 8, 1)) == pytest.approx(parameters(slim, (8, 8, 1)), rel=0.02)


def test_the_layers_follow_the_authors_rules():
    for layers in LAYERS.values():
        sizes = [size for _, size in layers]
        assert sizes == [3] * 10 + [1, 1, 3]
    widths = [channels for channels, _ in LAYERS["5m"]]
    assert widths[:11] == sorted(widths[:11])


def test_maps_are_halved_where_the_config_says_so(variables):
    _, out = jax.device_get(jax.jit(TINY.apply)(variables, IMAGES))
    shapes = [out[f"block{i:02d}"].shape for i in range(3)]
    assert shapes == [(3, 8, 8, 4), (3, 8, 8, 6), (3, 4, 4, 8)]
    np.testing.assert_array_equal(out["pooled"], out["map"].max((1, 2)))
    with pytest.raises(ValueError, match="cannot be halved 4 times: give fewer pools"):
        drawn(SimpleNet().init, IMAGES)


def test_dropout_is_drawn_in_training_only(variables):

    @jax.jit
    def embeddings(seed: jax.Array) -> Any:
        """In evaluation and in training."""
        rngs = {"dropout": jax.random.key(seed)}
        still = TINY.apply(variables, IMAGES, rngs=rngs)[0]
        given: Any = {"train": True, "rngs": rngs, "mutable": ["batch_stats"]}
        return still, TINY.apply(variables, IMAGES, **given)[0][0]

    (first, dropped), (second, again) = (jax.device_get(embeddings(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.any(dropped != again)
