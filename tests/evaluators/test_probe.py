"""Probes on features whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tests.evaluators.linear_dual import WIDTH, data, run
from vision.data.source import DataError
from vision.evaluate.figures import Curve
from vision.evaluators.features.probe import LinearProbe, NearestNeighbours, RidgeProbe, SgdProbe
from vision.probes.linear import FitError


def classes(count: int, seed: int, noise: float) -> dict[str, Any]:
    """Unit vectors around four axes, since the encoder of these tests normalises its pixels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, count).astype(np.int32)
    image = np.eye(4, WIDTH)[label] + noise * rng.normal(size=(count, WIDTH))
    return {"image": image / np.linalg.norm(image, axis=1, keepdims=True), "label": label}


@pytest.mark.parametrize("kind", [LinearProbe, RidgeProbe, SgdProbe])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_linear_probe_finds_classes_and_chance(kind: Any, devices: int):
    train, test = classes(200, 0, 0.25), classes(150, 1, 0.25)
    got = run(kind(data(**train), data(**test)), devices)
    assert got["top1"] > 0.9
    assert got["examples"] == 150
    assert got.get("nll", 0) < 0.5
    chosen = got["rates" if kind is SgdProbe else "decays"]
    assert isinstance(chosen, Curve)
    assert max(chosen.lines[0].y) == got["held_out_top1"]
    train["label"] = np.random.default_rng(2).permutation(train["label"])
    assert run(kind(data(**train), data(**test)), devices)["top1"] < 0.5


@pytest.mark.parametrize("kind", [LinearProbe, RidgeProbe, SgdProbe])
def test_the_penalty_is_chosen_without_the_test_set(kind: Any):
    """Other labels in test change what is measured, and nothing of what is fitted."""
    train, test = classes(100, 0, 0.4), classes(60, 1, 0.4)
    first = run(kind(data(**train), data(**test)))
    test["label"] = (test["label"] + 1) % 4
    second = run(kind(data(**train), data(**test)))
    assert first["top1"] > 0.6 > 0.4 > second["top1"]
    for name in ("rate" if kind is SgdProbe else "decay", "held_out_top1", "train_top1"):
        assert first[name] == second[name]


def test_a_ridge_probe_is_scikit_learn_with_the_chosen_penalty():
    train, test = classes(150, 0, 0.5), classes(90, 1, 0.5)
    got = run(RidgeProbe(data(**train), data(**test)))
    x = np.asarray(train["image"], np.float32)
    scale = StandardScaler().fit(x)
    peer = Ridge(alpha=got["decay"] * 150).fit(scale.transform(x), 2 * np.eye(4)[train["label"]])
    predicted = peer.predict(scale.transform(test["image"])).argmax(1)
    assert got["top1"] == pytest.approx(np.mean(predicted == test["label"]))


def test_rates_that_diverge_are_left_out_and_counted():
    train, test = classes(60, 0, 0.2), classes(40, 1, 0.2)
    got = run(SgdProbe(data(**train), data(**test), rates=(0.1, 3e38)))
    assert (got["rate"], got["diverged"]) == (0.1, 1)
    with pytest.raises(FitError, match="diverged with every one"):
        run(SgdProbe(data(**train), data(**test), rates=(3e38,)))


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


def test_neighbours_that_are_the_record_itself_are_counted():
    train, test = classes(100, 0, 0.4), classes(80, 1, 0.4)
    assert "in_train" not in run(NearestNeighbours(data(**train), data(**test)))
    test["image"][:3] = train["image"][[5, 9, 5]]
    assert run(NearestNeighbours(data(**train), data(**test)))["in_train"] == 3
    same = run(NearestNeighbours(data(**train), data(**train), k=(1,)))
    assert (same["top1"], same["in_train"], same["examples"]) == (1, 100, 100)


def test_zero_features_have_no_neighbours_and_are_counted():
    def zeroing(variables: Any, batch: Any) -> dict[str, Any]:
        x = batch["image"].reshape(len(batch["image"]), -1)
        return {"embedding": x * (batch["label"] != 3)[:, None]}

    train, test = classes(100, 0, 0.05), classes(50, 1, 0.05)
    got = run(NearestNeighbours(data(**train), data(**test)), function=zeroing)
    left_out = int((train["label"] == 3).sum() + (test["label"] == 3).sum())
    assert got["zero_features"] == left_out
    assert got["examples"] == (test["label"] != 3).sum()
    assert got["top1"] == 1
    for empty in (train, test):
        empty["label"][:] = 3
    with pytest.raises(DataError, match="the features of all records are zero"):
        run(NearestNeighbours(data(**train), data(**test)), function=zeroing)


@pytest.mark.parametrize("kind", [LinearProbe, RidgeProbe, NearestNeighbours])
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


@pytest.mark.parametrize("kind", [LinearProbe, RidgeProbe, NearestNeighbours])
def test_classes_that_one_side_lacks_and_labels_that_are_none(kind: Any):
    train, test = classes(120, 0, 0.05), classes(60, 1, 0.05)
    kept = train["label"] != 2
    some = {name: x[kept] for name, x in train.items()}
    got = run(kind(data(**some), data(**test)))
    assert got["absent_classes"] == 1
    assert got["top1"] == np.mean(test["label"] != 2)
    named = {**train, "class_names": ("a", "b", "c")}
    with pytest.raises(DataError, match="label 3 is no class: there are 3"):
        run(kind(data(**named), data(**test)))
    test["label"][3] = -2
    with pytest.raises(DataError, match="the first is -2 in row 3"):
        run(kind(data(**train), data(**test)))


def test_bad_arguments():
    some = data(**classes(10, 0, 0.1))
    wrong: Any = ({"rates": ()}, {"epochs": 0}, {"momentum": 1.0})
    for arguments in wrong:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            SgdProbe(some, some, **arguments)
    with pytest.raises(ValueError, match="decays"):
        RidgeProbe(some, some, decays=())
    few = data(**classes(9, 0, 0.1))
    with pytest.raises(DataError, match="9 training records with a label: a tenth"):
        run(RidgeProbe(few, some))
    with pytest.raises(ValueError, match="decays"):
        LinearProbe(some, some, decays=(0.0,))
    with pytest.raises(ValueError, match="k is "):
        NearestNeighbours(some, some, k=())
    with pytest.raises(ValueError, match="temperature"):
        NearestNeighbours(some, some, temperature=0)
    with pytest.raises(ValueError, match="nothing"):
        run(LinearProbe(some, some, output="nothing"))
