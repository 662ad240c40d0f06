"""Answers that change when the window moves, and the pixels that a moved window shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.evaluators.linear_dual import run
from vision.data import ops
from vision.data.ops.shift import Shift
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluators.robustness.translation import Translation, neighbours

SIDE, WINDOW, COUNT = 12, 6, 18
PICTURES: np.ndarray = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 1), np.uint8)


def corner(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Which half the first pixel is in."""
    first = batch["image"][:, 0, 0, 0] - 0.5
    return {"logits": np.asarray([-1.0, 1.0]) * first[:, None]}


def total(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The same by the sum of all pixels, in whole numbers, which no cyclic move changes."""
    light = (batch["image"] * 255).round().astype(np.int32).sum((1, 2, 3)) - WINDOW**2 * 127
    return {"logits": np.asarray([-1.0, 1.0]) * light[:, None]}


def pictures(label: np.ndarray | None = None, batch_size: int = 8) -> EvalData:
    label = np.zeros(COUNT, np.int32) if label is None else label
    source = Arrays({"image": PICTURES, "label": label})
    return EvalData(source, batch_size, (ops.CenterCrop(WINDOW), ops.ValueRange()), threads=0)


def firsts(down: int, right: int) -> np.ndarray:
    at = (SIDE - WINDOW) // 2
    return PICTURES[:, at + down, at + right, 0] / 255 > 0.5


@pytest.mark.parametrize("devices", [1, 8])
def test_answers_of_neighbours(devices: int):
    label = firsts(0, 0).astype(np.int32)
    label[:4] = 1 - label[:4]
    label[4] = -1
    got = run(Translation(pictures(label), (2, 1)), devices, corner)
    same = {d: np.stack([firsts(*move) == firsts(0, 0) for move in neighbours(d)]) for d in (1, 2)}
    for d in (1, 2):
        assert got[f"consistency_{d}"] == same[d].mean()
        assert got[f"steady_{d}"] == same[d].all(0).mean()
    every = np.concatenate([same[1], same[2]])
    assert got["consistency"] == every.mean()
    assert got["steady"] == every.all(0).mean()
    assert got["top1"] == 13 / 17
    assert got["worst_top1"] == pytest.approx(np.asarray(every.all(0))[5:].sum() / 17)
    assert (got["examples"], got["unlabelled"]) == (COUNT, 1)
    assert got["consistency_by_distance"].lines[0].x.tolist() == [1, 2]


def test_cyclic_moves_and_nan():
    assert run(Translation(pictures(), cyclic=True), 1, total)["steady"] == 1
    moved = run(Translation(pictures(), cyclic=True), 1, corner)
    at = (SIDE - WINDOW) // 2
    window = PICTURES[:, at : at + WINDOW, at : at + WINDOW, 0]
    same = [(window[:, down % WINDOW, right % WINDOW] > 127) == (window[:, 0, 0] > 127)
            for down, right in neighbours(1)]  # fmt: skip
    assert moved["consistency"] == np.mean(same)

    def nothing(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"logits": total(_, batch)["logits"] * np.nan}

    got = run(Translation(pictures()), 1, nothing)
    assert (got["consistency"], got["top1"], got["nonfinite"]) == (0, 0, 9 * COUNT)


def test_the_window():
    rng = np.random.default_rng(0)
    example = {"image": PICTURES[0], "boxes": np.asarray([[5, 4, 7, 6]], np.int32)}
    still = Shift(0, 0, (5, 6))(example, rng)
    crop = ops.CenterCrop((5, 6))(example, rng)
    for name in ("image", "boxes"):
        np.testing.assert_array_equal(still[name], crop[name])
    moved = Shift(1, -2, (5, 6))(example, rng)
    top, left = still["_draws"]["Shift"]["box"][:2]
    np.testing.assert_array_equal(moved["image"], PICTURES[0, top + 1 :, left - 2 :][:5, :6])
    assert (moved["boxes"] - still["boxes"] == [-1, 2, -1, 2]).all()
    around = Shift(3, -2)(example, rng)["image"]
    np.testing.assert_array_equal(around, np.roll(PICTURES[0], (-3, 2), (0, 1)))
    with pytest.raises(DataError, match="a window of 5x6 cannot be moved by"):
        Shift(5, 0, (5, 6))(example, rng)


def test_windows_that_cannot_move():
    with pytest.raises(ValueError, match="must have one CenterCrop"):
        Translation(EvalData(Arrays({"image": PICTURES}), 8, (ops.ValueRange(),), threads=0))
    with pytest.raises(ValueError, match="distances_px"):
        Translation(pictures(), (0, 1))
    with pytest.raises(DataError, match="cannot be moved"):
        run(Translation(pictures(), (4,)), 1, corner)
