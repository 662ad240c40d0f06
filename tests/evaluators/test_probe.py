"""Probes on features whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.evaluators.linear_dual import WIDTH, data, run
from vision.core.figures import Curve
from vision.data.source import DataError
from vision.evaluators.probe import LinearProbe, NearestNeighbours


def classes(count: int, seed: int, noise: float) -> dict[str, Any]:
    """Unit vectors around four axes, since the encoder of these tests normalises its pixels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, count).astype(np.int32)
    image = np.eye(4, WIDTH)[label] + noise * rng.normal(size=(count, WIDTH))
    return {"image": image / np.linalg.norm(image, axis=1, keepdims=True), "label": label}


@pytest.mark.parametrize("devices", [1, 8])
def test_a_linear_probe_finds_classes_and_chance(devices: int):
    train, test = classes(200, 0, 0.25), classes(150, 1, 0.25)
    got = run(LinearProbe(data(**train), data(**test)), devices)
    assert got["top1"] > 0.9
    assert got["examples"] == 150
    assert got["nll"] < 0.5
    assert isinstance(got["decays"], Curve)
    train["label"] = np.random.default_rng(2).permutation(train["label"])
    assert run(LinearProbe(data(**train), data(**test)), devices)["top1"] < 0.5


def cosine_vote(distance: Any) -> Any:
    """Squared distance of unit vectors is 2 - 2 cosine."""
    return np.exp(-(distance**2) / 2 / 0.2)


def test_votes_are_those_of_scikit_learn():
    train, test = classes(100, 0, 0.4), classes(80, 1, 0.4)
    got = run(NearestNeighbours(data(**train), data(**test), k=(7, 1, 500), temperature=0.2))
    for k in (7, 1, 500):
        vote: Any = cosine_vote
        exact = KNeighborsClassifier(min(k, 100), weights=vote)
        exact.fit(train["image"], train["label"])
        assert got[f"top1_{k}"] == pytest.approx(exact.score(test["image"], test["label"]))
    assert got["top1"] == got["top1_7"]


@pytest.mark.parametrize("kind", [LinearProbe, NearestNeighbours])
def test_what_is_left_out_is_counted(kind: Any):
    train, test = classes(100, 0, 0.1), classes(50, 1, 0.1)
    train["label"][:3] = -1
    test["label"][:2] = -1
    test["image"][5] = np.nan
    got = run(kind(data(**train), data(**test)))
    assert got["unlabelled"] == 5
    assert got["nonfinite"] == 1
    assert got["examples"] == 48
    assert got["top1"] == 47 / 48
    test["label"][:] = -1
    with pytest.raises(DataError, match="no record with a label"):
        run(kind(data(**train), data(**test)))


def test_bad_arguments():
    some = data(**classes(10, 0, 0.1))
    with pytest.raises(ValueError, match="decays"):
        LinearProbe(some, some, decays=(0.0,))
    with pytest.raises(ValueError, match="k="):
        NearestNeighbours(some, some, k=())
    with pytest.raises(ValueError, match="temperature"):
        NearestNeighbours(some, some, temperature=0)
    with pytest.raises(ValueError, match="nothing"):
        run(LinearProbe(some, some, output="nothing"))
