"""The protocol on drawn clips: still ones are copied, fused cues, points, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.label_prop.evaluator import LabelPropagation, fused
from papers.label_prop.method import Propagation
from papers.label_prop.points import heat_maps, peaks
from tests.evaluators.linear_dual import run
from vision.blocks.sites import SiteError
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Clips
from vision.train.tower import apply_tap


def predict(_: Any, batch: Mapping[str, Any], tap: Any = None) -> dict[str, Any]:
    """Colours of pixels, and where they are."""
    image = batch["image"]
    y, x = jnp.meshgrid(*(jnp.linspace(0, 1, n) for n in image.shape[1:3]), indexing="ij")
    place = jnp.broadcast_to(jnp.stack([y, x, 1 - y, 1 - x], -1), (*image.shape[:3], 4))
    apply_tap(tap, "place", place)
    return {"logits": apply_tap(tap, "colour", image + 0.1).mean((1, 2))}


def clips(motion: str) -> EvalData:
    source = Clips(
        num_examples=3, num_frames=5, image_size=16, motions=(motion,), num_objects=(1, 1),
        sizes=("large",), variants=("solid",), textures=("plain",), backgrounds=("paper",),
    )  # fmt: skip
    return EvalData(source, batch_size=2, threads=0)


def evaluator(motion: str, factors: Propagation, **more: Any) -> LabelPropagation:
    return LabelPropagation(clips(motion), 1, ("colour",), propagation=factors, **more)


def test_still_clips_are_copied_exactly_and_points_stay():
    got = run(evaluator("still", Propagation(1, 0.0, 2), boxes="boxes"), 1, predict)
    assert (got["j"], got["f"], got["jf"], got["j_recall"], got["j_decay"]) == (1, 1, 1, 1, 0)
    assert got["pck_10"] == got["pck_20"] == 1
    assert (got["objects"], got["clips"]) == (3, 3)
    assert got["j_by_frame"].lines[0].y.tolist() == [1] * 4


def test_colours_follow_what_moves_and_places_do_not():
    factors = Propagation(3, 8.0, 3, temperature=0.01)
    moving = run(evaluator("right", factors, boxes="boxes"), 2, predict)
    assert moving["j"] > 0.8
    both: dict[str, Any] = {"sites": ("colour", "place")}
    placed = LabelPropagation(clips("right"), 1, **both, weights=(0.0, 1.0), propagation=factors)
    assert run(placed, 1, predict)["j"] < 0.6
    alone = LabelPropagation(clips("right"), 1, **both, weights=(1.0, 0.0), propagation=factors)
    assert run(alone, 1, predict)["j"] == pytest.approx(moving["j"], abs=1e-6)


def test_parts():
    maps = [np.random.default_rng(i).normal(size=(2, 3, 3, 4)) for i in (0, 1)]
    joined = np.asarray(jax.jit(lambda maps: fused(maps, (1.0, 3.0)))(maps))
    np.testing.assert_allclose((joined**2).sum(-1), 4, rtol=1e-5)
    points = np.asarray([[1.25, 3.0], [0.0, 0.0]], np.float32)
    again = jax.jit(lambda points: peaks(heat_maps(points, (5, 6))[None])[0])(points)
    np.testing.assert_allclose(again, points, atol=0.15)


def test_what_is_missing_is_said():
    with pytest.raises(SiteError, match=r"'map'.*place, colour"):
        run(LabelPropagation(clips("still"), 1), 1, predict)
    with pytest.raises(ValueError, match="has no 'middles'"):
        run(evaluator("still", Propagation(), boxes="middles"), 1, predict)
    nothing = Arrays({
        "video": np.zeros((2, 3, 8, 8, 3), np.uint8), "instances": np.zeros((2, 3, 8, 8), np.uint8)
    })  # fmt: skip
    empty = LabelPropagation(EvalData(nothing, batch_size=2, threads=0), 1, ("colour",))
    with pytest.raises(DataError, match="no object to follow"):
        run(empty, 1, predict)
    with pytest.raises(ValueError, match="weights"):
        LabelPropagation(clips("still"), 1, ("colour",), (1.0, 2.0))
