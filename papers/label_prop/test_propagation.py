"""Propagation by its definition, exact copies, exact tracking; video measures by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.label_prop.method import Propagation, cells_of
from papers.label_prop.video import boundary, correct_points, decay, outline, recall, region

RNG = np.random.default_rng(0)
FRAMES, H, W, C = 5, 4, 5, 3
FEATURES = RNG.normal(size=(FRAMES, H, W, 6)).astype(np.float32)
LABELS = np.eye(C, dtype=np.float32)[RNG.integers(0, C, (H, W))]
run = jax.jit(lambda factors, features, labels: factors(features, labels), static_argnums=0)


def by_hand(of: Propagation) -> np.ndarray:
    reach = np.inf if of.radius is None else of.radius
    unit = FEATURES / np.linalg.norm(FEATURES, axis=-1, keepdims=True)
    made: list[Any] = [LABELS]
    for t in range(1, FRAMES):
        context: list[int] = sorted({*([0] if of.first else []), *range(max(0, t - of.context), t)})
        new = np.zeros((H, W, C))
        for y, x in np.ndindex(H, W):
            cells: list[tuple[float, int, Any]] = []
            for s in context:
                for v, u in np.ndindex(H, W):
                    free = of.first_unbounded and of.first and s == 0
                    if free or (v - y) ** 2 + (u - x) ** 2 <= reach**2:
                        cells.append((unit[t, y, x] @ unit[s, v, u], s, made[s][v, u]))
            score = np.exp(np.asarray([a for a, _, _ in cells]) / of.temperature)
            everything = score.sum()
            order = np.argsort(-score)
            if of.top_k is not None:
                groups: Any = context if of.per_frame else [None]
                order = [
                    i for g in groups
                    for i in [i for i in order if g is None or cells[i][1] == g][: of.top_k]
                ]  # fmt: skip
            total = everything if of.softmax_first else score[order].sum()
            new[y, x] = sum(score[i] / total * cells[i][2] for i in order)
        if of.renormalise:
            new = new / new.sum(-1, keepdims=True)
        made.append(new)
    return np.stack(made)


PLAIN = Propagation(top_k=4, radius=2.0, context=2, temperature=0.3)
CASES = {
    "plain": PLAIN,
    "all": dataclasses.replace(PLAIN, top_k=None, radius=None, context=1, first=False),
    "first unbounded": dataclasses.replace(PLAIN, first_unbounded=True, radius=1.0),
    "per frame": dataclasses.replace(PLAIN, per_frame=True, top_k=2),
    "softmax first": dataclasses.replace(PLAIN, softmax_first=True, renormalise=True),
}


@pytest.mark.parametrize("name", CASES)
def test_by_its_definition(name: str):
    propagated = run(CASES[name], FEATURES, LABELS)
    np.testing.assert_allclose(propagated, by_hand(CASES[name]), rtol=1e-4, atol=1e-5)
    if name != "softmax first":
        np.testing.assert_allclose(np.asarray(propagated).sum(-1), 1, rtol=1e-5)


def test_a_still_clip_is_copied_and_a_moving_one_tracked():
    still = np.broadcast_to(FEATURES[0], FEATURES.shape)
    copied = run(Propagation(1, 0.0, 2), still, LABELS)
    np.testing.assert_array_equal(copied, np.broadcast_to(LABELS, (FRAMES, *LABELS.shape)))
    # Every cell has a colour of its own and moves by a cell, around the edges.
    moving = np.stack([np.roll(FEATURES[0], (t, t), (0, 1)) for t in range(FRAMES)])
    tracked = run(Propagation(1, None, 1, first=False), moving, LABELS)
    for t in range(FRAMES):
        np.testing.assert_array_equal(tracked[t], np.roll(LABELS, (t, t), (0, 1)))
    with pytest.raises(ValueError, match="top_k is 0"):
        Propagation(0)


def test_cells_have_the_label_of_most_of_them():
    large = np.zeros((8, 10, 2), np.float32)
    large[..., 0] = 1
    large[0:2, 0:2], large[4:6, 4] = (0, 1), (0, 1)
    small = np.asarray(cells_of(jnp.asarray(large), (4, 5)))
    assert small[0, 0].tolist() == [0, 1]
    assert small[3, 4].tolist() == [1, 0]
    assert small.sum() == 20


def test_measures_of_video():
    truth = np.zeros((40, 60), bool)
    truth[10:20, 10:30] = True
    moved = np.roll(truth, 5, 1)
    assert region(moved, truth) == pytest.approx(150 / 250)
    empty = np.zeros_like(truth)
    assert region(empty, empty) == boundary(empty, empty) == boundary(truth, truth) == 1
    assert region(empty, truth) == boundary(empty, truth) == 0
    # Of 72 px, 0.8 % are one pixel: a move by one keeps all of the boundary, one by 5 its rows.
    assert boundary(np.roll(truth, 1, 1), truth) == 1
    edge = outline(truth)
    assert edge.sum() == 2 * (20 + 10)
    near = [(outline(moved)[y, x], edge[max(0, y - 1) : y + 2, x].any()
             or edge[y, max(0, x - 1) : x + 2].any()) for y, x in np.ndindex(40, 60)]  # fmt: skip
    precision = sum(a and b for a, b in near) / edge.sum()
    assert boundary(moved, truth) == pytest.approx(precision)
    values = np.asarray([0.9, 0.9, 0.6, 0.4, 0.4, 0.2, 0.5, 0.1])
    assert recall(values) == 3 / 8
    assert decay(values) == pytest.approx(0.9 - 0.3)
    right = correct_points(
        np.zeros((2, 2)), np.asarray([[3, 4], [0, 2]]), np.asarray([40, 20]), 0.1
    )
    assert right.tolist() == [False, True]
