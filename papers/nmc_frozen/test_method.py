"""Streams that nearest means learn: every order ends alike, and nothing learned moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from papers.nmc_frozen.method import NearestMeanStream
from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError

RNG = np.random.default_rng(0)


def predict(_: Any, batch: Any) -> dict[str, Any]:
    return {"embedding": batch["image"].reshape(len(batch["image"]), -1)}


def records(classes: list[int], each: int = 6, noise: float = 0.6) -> dict[str, Any]:
    label = np.repeat(np.array(classes, np.int32), each)
    image = np.eye(12)[label] + noise * RNG.normal(size=(len(label), 12))
    return {"image": image.astype(np.float32), "label": label}


def part(rows: dict[str, Any], chosen: Any) -> Any:
    return data(**{name: x[chosen] for name, x in rows.items()})


TRAIN, TEST = records([0, 1, 2, 3]), records([0, 1, 2, 3], each=20)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_stream_of_tasks_ends_where_a_shuffled_one_does(devices: int):
    tasks = [part(TRAIN, np.isin(TRAIN["label"], pair)) for pair in ((2, 0), (3, 1))]
    shuffled = [part(TRAIN, rows) for rows in np.split(RNG.permutation(24), 3)]
    test = data(**TEST)
    by_task = run(NearestMeanStream(tuple(tasks), test), devices, predict)
    mixed = run(NearestMeanStream(tuple(shuffled), test), 1, predict)
    means = np.stack([TRAIN["image"][TRAIN["label"] == c].mean(0) for c in range(4)])
    predicted = np.square(TEST["image"][:, None] - means).sum(-1).argmin(1)
    assert 0.6 < np.mean(predicted == TEST["label"]) < 1
    assert by_task["last"] == mixed["last"] == np.mean(predicted == TEST["label"])
    assert by_task["memory_bytes"] == 4 * (12 + 1) * 4
    assert (by_task["parts"], by_task["classes"], by_task["examples"]) == (2, 4, 80)
    # Among fewer classes old ones are as easy or easier: what is lost is lost to the new ones.
    assert by_task["forgetting"] >= 0
    assert by_task["average"] >= by_task["last"]


def test_a_class_may_come_back_and_another_never_come():
    again = NearestMeanStream((part(TRAIN, slice(0, 12)), part(TRAIN, slice(6, 12))), data(**TEST))
    got = run(again, 1, predict)
    assert (got["classes"], got["never_came"], got["examples"]) == (2, 40, 40)
    assert "forgetting" not in got  # the second part brings no class
    other = data(**records([7]))
    with pytest.raises(DataError, match="no record of a class"):
        run(NearestMeanStream((part(TRAIN, slice(0, 12)),), other), 1, predict)
    with pytest.raises(ValueError, match=r"stream is .* not empty"):
        NearestMeanStream((), other)
