"""Gabor textures: nothing at first; filters stay in their intervals; regions cover the image."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.gabor.bank import HIGHEST, LOWEST, intervals, kernels_of, statistics, values_at
from papers.gabor.method import GaborTexture
from papers.gabor.regions import proposals, shares_of_cells
from tests.models.tower_cases import quick_jit
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.objectives.classify import Classify
from vision.train.objective import Context

MODEL: Any = PatchTower(num_classes=3)
OBJECTIVE = GaborTexture(MODEL, keep=2, size=9, hidden=8, sides=(0.5,), orientations=2)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def stripes(frequency: float, angle: float, side: int = 24) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    turned = x * np.cos(angle) + y * np.sin(angle)
    return np.cos(2 * np.pi * frequency * turned).astype(np.float32)


def batch() -> dict[str, Any]:
    image = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    return {"image": image, "label": np.arange(3), "_mask": np.ones(3, bool)}


def test_it_begins_as_the_plain_tower_and_textures_change_it():
    given = batch()
    variables: Any = quick_jit(OBJECTIVE.init)(jax.random.key(0), given)
    moved = drawn(OBJECTIVE.init, given)

    @quick_jit
    def answers(variables: Any) -> Any:
        plain = Classify(MODEL).predict(variables, given, CTX)["logits"]
        return OBJECTIVE.predict(variables, given, CTX), plain

    out, plain = jax.device_get(answers(variables))
    np.testing.assert_array_equal(out["logits"], plain)
    out, plain = jax.device_get(answers(moved))
    assert np.abs(out["logits"] - plain).max() > 1e-4
    assert out["gate"].shape == (3, 9)
    assert out["boxes"].shape == (3, 2, 4)
    # The two regions with the widest open gate.
    best = np.argsort(-out["gate"])[:, :2]
    np.testing.assert_allclose(out["boxes"], 16 * proposals((0.5,))[best])


def test_the_bank_covers_the_plane_and_every_filter_stays_in_its_interval():
    edges = intervals(4, 3)
    assert edges.shape == (12, 5, 2)
    np.testing.assert_allclose(edges[:4, 0].ravel()[[0, -1]], (0, np.pi), rtol=1e-6)
    np.testing.assert_allclose(edges[1:4, 0, 0], edges[:3, 0, 1])
    np.testing.assert_allclose([edges[0, 1, 0], edges[-1, 1, 1]], (LOWEST, HIGHEST), rtol=1e-5)
    for place in (-50.0, 0.0, 50.0):
        values = np.asarray(values_at(jnp.full((12, 5), place), 4, 3))
        assert (values >= edges[..., 0] - 1e-6).all()
        assert (values <= edges[..., 1] + 1e-6).all()


def test_a_filter_answers_to_its_own_stripes():
    angles, frequency = (0.0, np.pi / 4, np.pi / 2), 0.2
    values = np.array([[angle, frequency, 0.5, 1, 0] for angle in angles], np.float32)
    filters = np.asarray(kernels_of(jnp.asarray(values), 9))
    np.testing.assert_allclose(filters.sum((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(np.square(filters).sum((0, 1)), 1, rtol=1e-4)
    shown = np.stack([stripes(frequency, angle) for angle in angles])
    windows = np.lib.stride_tricks.sliding_window_view(shown, (9, 9), axis=(1, 2))
    responses = np.einsum("nxyij,ijf->nxyf", windows, filters)
    size, deviation, energy = np.split(np.asarray(statistics(jnp.asarray(responses))), 3, 1)
    for found in (size, deviation, energy):
        assert found.argmax(1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(size, np.abs(responses).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(deviation, responses.std((1, 2)), atol=1e-4)


def test_regions_cover_the_image_and_read_the_cells_they_lie_on():
    boxes = proposals((1.0, 0.5))
    assert len(boxes) == 1 + 9
    np.testing.assert_array_equal(boxes[0], (0, 0, 1, 1))
    assert boxes.min() == 0
    assert boxes.max() == 1
    cells = shares_of_cells(boxes, (2, 3))
    np.testing.assert_allclose(cells.sum((1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(cells[0], 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(cells[1], [[2 / 3, 1 / 3, 0], [0, 0, 0]], atol=1e-6)


def test_what_cannot_be_is_named():
    cases: Any = (
        ({"keep": 10}, "keep=10 of 9 regions"),
        ({"sides": (1.5,)}, r"sides=\(1.5,\): shares"),
        ({"size": 8}, "size=8 is less than filter_side=9"),
    )
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(OBJECTIVE, **fields)
    tiny = dataclasses.replace(OBJECTIVE, sides=(0.1,))
    with pytest.raises(ValueError, match="less than 2 pixels"):
        tiny.init(jax.random.key(0), batch())
    headless = dataclasses.replace(OBJECTIVE, model=dataclasses.replace(MODEL, num_classes=None))
    with pytest.raises(ValueError, match="no map, or no head"):
        headless.init(jax.random.key(0), batch())
