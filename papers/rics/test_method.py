"""Which crop RICS chooses, and that a move of the picture does not change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from papers.rics.method import Rics, Score, share_of_same_crops
from tests.evaluators.linear_dual import run
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluators.robustness.translation import Translation

SIDE, PICTURE, WINDOW = 20, 18, 8
SCORES: tuple[Score, Score] = ("filter", "hash")
PICTURES = np.random.default_rng(0).integers(0, 256, (200, SIDE, SIDE, 1), np.uint8)
FLAT = np.full((40, SIDE, SIDE, 1), 7, np.uint8)
FLAT[:, 4:9, 5:8] = np.arange(40, dtype=np.uint8)[:, None, None, None] * 3


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Two answers that hang on every pixel's place."""
    weights = np.random.default_rng(1).normal(size=(WINDOW * WINDOW, 2))
    return {"logits": batch["image"].reshape(len(batch["image"]), -1) @ weights}


def pictures(side: int, images: np.ndarray = PICTURES) -> EvalData:
    source = Arrays({"image": images, "label": np.zeros(len(images), np.int32)})
    return EvalData(source, 40, (ops.CenterCrop(side), ops.ValueRange(-1, 1)), threads=0)


def rics(score: Score, cyclic: bool = False) -> Rics:
    data = pictures(PICTURE, np.concatenate([PICTURES[:80], FLAT]))
    return Rics(Translation(data, cyclic=cyclic), WINDOW, score, cyclic=cyclic)


def floats(images: np.ndarray) -> Any:
    return images.astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize("score", SCORES)
def test_the_winner_is_the_same_crop_wherever_it_is(score: Score):
    choose = jax.jit(rics(score).crops)
    crops, start = jax.device_get(choose(floats(PICTURES[:, :PICTURE, :PICTURE])))
    for number in range(5):
        y, x = start[number]
        expected = floats(PICTURES[number, y : y + WINDOW, x : x + WINDOW])
        np.testing.assert_array_equal(crops[number], expected)
    same = {}
    for down, right in ((0, 1), (1, 1), (2, 1)):
        moved = PICTURES[:, down : down + PICTURE, right : right + PICTURE]
        other, at = jax.device_get(choose(floats(moved)))
        stayed = (at + np.asarray((down, right)) == start).all(1)
        np.testing.assert_array_equal(stayed, (other == crops).all((1, 2, 3)))
        inside = (start >= (down, right)).all(1)
        assert not stayed[~inside].any()
        same[down, right] = stayed.mean()
        # Of noise, any order of scores is as likely as any other.
        expected = share_of_same_crops(PICTURE - WINDOW + 1, down, right)
        assert stayed.mean() == pytest.approx(expected, abs=3 * (0.25 / len(stayed)) ** 0.5)
    assert same[0, 1] > same[2, 1]


def test_the_formula():
    for n in (5, 11, 39):
        assert share_of_same_crops(n, 1, 0) == pytest.approx((n - 1) / (n + 1))
        assert share_of_same_crops(n, 0, 0) == 1
        assert share_of_same_crops(n, 0, n) == 0
    assert share_of_same_crops(39, 1, 0) == 0.95


@pytest.mark.parametrize("score", SCORES)
def test_cyclic_moves_change_nothing(score: Score):
    """Also where most of the picture is of one colour, so that many crops are equal."""
    assert run(rics(score, cyclic=True), 1, predict)["steady"] == 1


@pytest.mark.parametrize("devices", [1, 8])
def test_it_is_steadier_than_the_middle(devices: int):
    middle = run(Translation(pictures(WINDOW)), devices, predict)
    chosen = run(rics("filter"), devices, predict)
    assert chosen["consistency"] > middle["consistency"] + 0.2
    assert chosen["examples"] == 120


def test_tied_crops_are_told_apart_by_their_pixels():
    flat = floats(FLAT[:, :PICTURE, :PICTURE])
    choose = jax.jit(rics("filter", cyclic=True).crops)
    crops, _start = choose(flat)
    moved, _at = choose(floats(np.roll(FLAT[:, :PICTURE, :PICTURE], (3, 5), (1, 2))))
    np.testing.assert_array_equal(crops, moved)
    one: Any = np.full((1, 12, 12, 3), 0.5, np.float32)
    assert jax.eval_shape(rics("filter").crops, one)[0].shape == (1, WINDOW, WINDOW, 3)


def test_arguments_of_rics():
    still = Translation(pictures(PICTURE))
    with pytest.raises(ValueError, match="one of 'filter', 'hash'"):
        Rics(still, 8, "edges")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="does not fit into window_px=4"):
        Rics(still, 4)
    with pytest.raises(ValueError, match=r"window_px=8 needs \(B, H, W, C\)"):
        jax.eval_shape(rics("hash").crops, floats(PICTURES[:, :7, :8]))
