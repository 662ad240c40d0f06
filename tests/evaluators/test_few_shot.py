"""Few-shot episodes: what is drawn, the heads beside scikit-learn, and what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid

from tests.evaluators.linear_dual import WIDTH, data, run
from vision.evaluators.features.few_shot import FewShot
from vision.probes.episodes import centroids, draw_episodes, logistic, ridge
from vision.probes.linear import FitError
from vision.probes.ridge import signs

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 3, 4, 7, 9], [30, 9, 12, 20, 5]))


def test_episodes_have_every_class_and_record_once_and_are_those_of_the_seed():
    drawn = draw_episodes(LABELS, 3, 2, 6, 400, 5)
    assert drawn.support.shape == (400, 3, 2)
    assert drawn.query.shape == (400, 3, 6)
    rows = np.concatenate([drawn.support, drawn.query], 2)
    assert (LABELS[rows] == drawn.classes[..., None]).all()
    assert all(len(np.unique(each)) == 24 for each in rows)
    assert set(drawn.classes.ravel().tolist()) == {0, 3, 4, 7}  # of 9 there are too few
    again = draw_episodes(LABELS, 3, 2, 6, 400, 5)
    assert (again.support == drawn.support).all()
    assert (draw_episodes(LABELS, 3, 2, 6, 400, 6).support != drawn.support).any()
    # Uniform: each of four classes in three of four episodes, each of 30 records alike.
    share = np.mean([(drawn.classes == c).any(1).mean() for c in (0, 3, 4, 7)])
    assert share == 0.75
    assert abs((drawn.classes == 0).any(1).mean() - 0.75) < 0.08
    often = np.bincount(rows[drawn.classes == 0].ravel(), minlength=len(LABELS))[LABELS == 0]
    assert often.min() > 0.6 * often.mean()
    with pytest.raises(FitError, match="4 of 5 classes have 8 examples"):
        draw_episodes(LABELS, 5, 2, 6, 10, 0)


def episodes(shots: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(4, 3, shots, 6)) + 2 * rng.normal(size=(4, 3, 1, 6))
    return support, rng.normal(size=(4, 10, 6))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of variances of one
@pytest.mark.parametrize("shots", [1, 4])
def test_heads_are_those_of_scikit_learn(shots: int):
    support, query = episodes(shots)
    labels = np.repeat(np.arange(3), shots)
    nearest, squares = centroids(support, query), ridge(support, query, 0.3)
    soft = logistic(support, query, 0.7, 1e-9)
    for i in range(4):
        x = support[i].reshape(-1, 6)
        peer = NearestCentroid().fit(x, labels)
        np.testing.assert_array_equal(nearest[i].argmax(1), peer.predict(query[i]))
        peer = Ridge(alpha=0.3 * len(x)).fit(x, signs(labels, 3))
        np.testing.assert_allclose(squares[i], peer.predict(query[i]), atol=1e-9)
        peer = LogisticRegression(C=0.7, tol=1e-10, max_iter=5000).fit(x, labels)
        p = np.exp(soft[i] - soft[i].max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        np.testing.assert_allclose(p, peer.predict_proba(query[i]), atol=2e-5)


def test_a_fit_that_does_not_end_says_so():
    support = np.random.default_rng(0).normal(size=(4, 3, 8, 2))  # classes lie on each other
    with pytest.raises(FitError, match=r"c=100000000\.0 have not converged"):
        logistic(support, support.reshape(4, 24, 2), 1e8)


def clusters(noise: float) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    label = np.repeat(np.arange(6), 30).astype(np.int32)
    image = np.eye(6, WIDTH)[label] + noise * rng.normal(size=(180, WIDTH))
    return {"image": image.astype(np.float32), "label": label}


def test_more_shots_are_better_and_labels_by_chance_are_chance():
    given = clusters(0.45)
    asked = FewShot(data(**given), shots=(1, 5), queries=10, episodes=60)
    got = run(asked)
    for head in ("centroid", "ridge", "logistic"):
        one_shot, five_shot = got[f"{head}_1shot"], got[f"{head}_5shot"]
        assert 0.35 < one_shot < five_shot - 0.05
        assert 0.005 < got[f"{head}_5shot_ci95"] < 0.05
    assert (got["classes"], got["examples"]) == (6, 180)
    given["label"] = np.random.default_rng(1).permutation(given["label"])
    chance = run(FewShot(data(**given), queries=10, episodes=60, heads=("ridge",)))
    assert chance["ridge_5shot"] == pytest.approx(0.2, abs=4 * chance["ridge_5shot_ci95"])


def test_what_is_left_out_is_counted():
    given = clusters(0.0)
    given["label"][:25] = -1  # five of class 0 are left: too few
    given["image"][[40, 41]] = np.nan
    asked = FewShot(data(**given), shots=(2,), queries=10, episodes=20, heads=("centroid",))
    got = run(asked)
    assert got["centroid_2shot"] == 1
    assert got["centroid_2shot_ci95"] == 0
    assert (got["unlabelled"], got["nonfinite"], got["small_classes"]) == (25, 2, 1)
    assert (got["classes"], got["examples"]) == (5, 153)


def test_bad_arguments():
    some = data(**clusters(0.1))
    wrong: Any = (
        {"ways": 1},
        {"shots": ()},
        {"queries": 0},
        {"episodes": 1},
        {"heads": ("svm",)},
        {"heads": ()},
        {"decay": 0.0},
        {"c": np.inf},
    )
    for arguments in wrong:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            FewShot(some, **arguments)
    with pytest.raises(FitError, match="7-way episodes"):
        run(FewShot(some, ways=7))
    with pytest.raises(ValueError, match="'nothing' from the objective's predict"):
        run(FewShot(some, output="nothing"))
