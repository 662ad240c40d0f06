"""Rankings against torchmetrics, the conventions of CLIP-benchmark and open_clip, and sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from vision.blocks import ranking
from vision.blocks.ranking import NEVER, Places, RankingError, rank

GOLDEN = np.load(
    Path(__file__).resolve().parents[1] / "golden" / "retrieval" / "metrics.npz",
    allow_pickle=False,
)
KS = (1, 5, 10)
CASES = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("torchmetrics/")})
PAIRED = sorted({key.split("/")[1] for key in GOLDEN.files if key.startswith("paired/")})
NOTHING = np.zeros(0, np.int64)


def metrics(places: Places) -> dict[str, np.ndarray]:
    actual = {
        "average_precision": ranking.average_precision(places),
        "ndcg": ranking.ndcg(places),
        "r_precision": ranking.r_precision(places),
        "reciprocal_rank": ranking.reciprocal_rank(places),
    }
    for k in KS:
        actual[f"recall@{k}"] = ranking.recall(places, k)
        actual[f"hit@{k}"] = ranking.hit(places, k)
        actual[f"precision@{k}"] = ranking.precision(places, k)
        actual[f"ndcg@{k}"] = ranking.ndcg(places, k)
    return actual


def of(*placed: list[int], relevant: list[int] | None = None) -> Places:
    width = max(map(len, placed))
    place = np.full((len(placed), width), NEVER, np.int64)
    for row, each in enumerate(placed):
        place[row, : len(each)] = each
    return Places(place, np.asarray(relevant or [len(each) for each in placed]))


def sorted_places(scores: np.ndarray, relevant: np.ndarray, junk: np.ndarray) -> list[int]:
    """Of one query, by walking down a stable sort."""
    walked, actual = 0, []
    for item in np.argsort(-scores, kind="stable").tolist():
        if item in junk:
            continue
        if item in relevant:
            actual.append(walked)
        walked += 1
    return actual


@pytest.mark.parametrize("case", CASES)
def test_equal_to_torchmetrics(case: str) -> None:
    part = {
        key.removeprefix(f"torchmetrics/{case}/"): GOLDEN[key]
        for key in GOLDEN.files
        if key.startswith(f"torchmetrics/{case}/")
    }
    relevant = part["relevant"]
    places = rank(part["queries"], part["gallery"], lambda i: np.flatnonzero(relevant[i]))
    got = metrics(places)
    np.testing.assert_array_equal(places.relevant, relevant.sum(1))
    assert places.relevant[0] == 0
    assert np.isnan(got["ndcg"][0])
    for name, values in got.items():
        if (k := int(name.partition("@")[2] or 0)) > relevant.shape[1]:
            raise AssertionError(f"{name} with {k} of {relevant.shape[1]} items is no test")
        # Their nDCG adds up in float32.
        rtol = 2e-5 if name.startswith("ndcg") else 2e-6
        np.testing.assert_allclose(values, part[name], rtol=rtol, atol=1e-7, err_msg=name)
        if f"mean/{name}" in part:
            assert ranking.mean(values) == pytest.approx(float(part[f"mean/{name}"]), rel=rtol)


def test_equal_to_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(8, 6)), rng.normal(size=(70, 6))
    queries, gallery = queries.astype(np.float32), gallery.astype(np.float32)
    relevant = rng.random((8, 70)) < 0.3
    places = rank(queries, gallery, lambda i: np.flatnonzero(relevant[i]))
    precision, ndcg = ranking.average_precision(places), ranking.ndcg(places, 20)
    for i, scores in enumerate(queries @ gallery.T):
        assert precision[i] == pytest.approx(average_precision_score(relevant[i], scores))
        assert ndcg[i] == pytest.approx(ndcg_score(relevant[i : i + 1], scores[None], k=20))


@pytest.mark.parametrize("case", PAIRED)
def test_equal_to_clip_benchmark_and_open_clip(case: str) -> None:
    image, text = GOLDEN[f"paired/{case}/image"], GOLDEN[f"paired/{case}/text"]
    count, captions, width = text.shape
    flat = text.reshape(-1, width)
    ways = {
        "image_to_text": rank(image, flat, lambda i: i * captions + np.arange(captions)),
        "text_to_image": rank(flat, image, lambda i: np.asarray([i // captions])),
    }
    for way, places in ways.items():
        for k in KS:
            golden = float(GOLDEN[f"paired/{case}/{way}_r{k}"])
            assert ranking.mean(ranking.hit(places, k)) == pytest.approx(golden, rel=1e-6)
        if captions == 1:
            clip = f"paired/{case}/open_clip/{way}"
            assert ranking.median_rank(places, count) == float(GOLDEN[f"{clip}/median_rank"])
            assert ranking.mean_rank(places, count) == pytest.approx(
                float(GOLDEN[f"{clip}/mean_rank"])
            )
            for k in KS:
                assert ranking.mean(ranking.hit(places, k)) == float(GOLDEN[f"{clip}/R@{k}"])


@pytest.mark.parametrize(("share", "junk_share"), [(0.02, 0.0), (0.05, 0.1), (0.4, 0.3)])
@pytest.mark.parametrize("levels", [0, 4])
def test_places_equal_a_stable_sort(
    share: float, junk_share: float, levels: int, monkeypatch
) -> None:
    """With few and many relevant items, and with nothing but ties."""
    rng = np.random.default_rng(levels)
    queries, gallery = rng.normal(size=(12, 6)), rng.normal(size=(90, 6))
    if levels:  # whole numbers: equal scores are exactly equal
        queries, gallery = (rng.integers(0, levels, x.shape) for x in (queries, gallery))
    kind = rng.random((12, 90))
    relevant, junk = kind < share, kind > 1 - junk_share
    queries, gallery = queries.astype(np.float32), gallery.astype(np.float32)
    scores = queries @ gallery.T
    for budget in (2**25, 1):
        monkeypatch.setattr(ranking, "_SCORES", budget)
        places = rank(
            queries,
            gallery,
            lambda i: np.flatnonzero(relevant[i]),
            lambda i: np.flatnonzero(junk[i]),
        )
        for i in range(12):
            expected = sorted_places(
                scores[i], np.flatnonzero(relevant[i]), np.flatnonzero(junk[i])
            )
            assert places.place[i, : places.relevant[i]].tolist() == expected
            assert (places.place[i, places.relevant[i] :] == NEVER).all()


@pytest.mark.parametrize("width", [3, 64, 513])
def test_equal_rows_tie_wherever_they_stand(width: int, monkeypatch) -> None:
    """The gallery has five different rows, 60 times each, in any order."""
    rng = np.random.default_rng(width)
    different = rng.normal(size=(5, width)).astype(np.float32)
    kind = rng.permutation(np.repeat(np.arange(5), 60))
    queries = rng.normal(size=(30, width)).astype(np.float32)
    queries[:5] = different
    exact = queries.astype(np.float64) @ different.T.astype(np.float64)
    for budget in (2**24, 2500, 1):
        monkeypatch.setattr(ranking, "_SCORES", budget)
        places = rank(queries, different[kind], lambda i: np.flatnonzero(kind == i % 5))
        assert places.place.shape == (30, 60)
        for i, row in enumerate(places.place):
            above = 60 * np.count_nonzero(exact[i] > exact[i, i % 5])
            np.testing.assert_array_equal(row, above + np.arange(60))
        single = rank(queries, different[kind], lambda i: np.flatnonzero(kind == i % 5)[3:4])
        np.testing.assert_array_equal(single.place[:, 0], places.place[:, 3])


def test_rows_that_are_not_finite_fail() -> None:
    queries = np.asarray([[1, 1], [np.inf, 0]], np.float32)
    gallery = np.asarray([[1, 1], [np.nan, 1], [0, 0], [-1, -1]], np.float32)
    places = rank(queries, gallery, lambda _: np.asarray([1, 3]))
    assert places.place.tolist() == [[2, NEVER], [NEVER, NEVER]]
    assert places.relevant.tolist() == [2, 2]
    assert ranking.recall(places, 4).tolist() == [0.5, 0]
    assert ranking.average_precision(places)[1] == ranking.reciprocal_rank(places)[1] == 0
    assert ranking.mean_rank(places, 4) == (3 + 4) / 2


def test_average_precision_by_hand() -> None:
    """Relevances 1, 0, 1 of 4: INQUIRE's AP@3 is the mean of 1 and 2/3, times 2 of 3."""
    places = of([0, 2, 5, 9])
    assert ranking.average_precision(places, 3)[0] == pytest.approx((1 + 2 / 3) / 2 * 2 / 3)
    assert ranking.average_precision(places)[0] == pytest.approx((1 + 2 / 3 + 3 / 6 + 4 / 10) / 4)
    assert ranking.average_precision(of([0]), 50)[0] == 1
    assert ranking.r_precision(places)[0] == 0.5
    assert ranking.reciprocal_rank(of([4]))[0] == 0.2


def oxford(ranked: list[int], positive: set[int], junk: set[int]) -> float:
    """Area under the precision-recall curve, by walking down the list and skipping junk."""
    area, recall, precision, actual, depth = 0.0, 0.0, 1.0, 0, 0
    for item in ranked:
        if item in junk:
            continue
        actual, depth = actual + (item in positive), depth + 1
        now = actual / len(positive)
        area += (now - recall) * (precision + actual / depth) / 2
        recall, precision = now, actual / depth
    return area


def test_trapezoid_equals_a_sequential_computation() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(60, 5)).astype(np.float32)
    queries = rng.normal(size=(20, 5)).astype(np.float32)
    kind = rng.integers(0, 5, (20, 60))
    places = rank(
        queries,
        gallery,
        lambda i: np.flatnonzero(kind[i] == 1),
        lambda i: np.flatnonzero(kind[i] == 2),
    )
    for i, value in enumerate(ranking.trapezoid(places)):
        ranked = np.argsort(-(queries[i] @ gallery.T), kind="stable").tolist()
        positive, junk = (set(np.flatnonzero(kind[i] == k).tolist()) for k in (1, 2))
        assert value == pytest.approx(oxford(ranked, positive, junk), rel=1e-12)


def test_best_and_worst_rankings() -> None:
    best, worst = of([0, 1, 2]), of([97, 98, 99])
    for name, values in metrics(best).items():
        if name in ("average_precision", "ndcg", "r_precision", "hit@1", "recall@5", "ndcg@1"):
            assert values[0] == pytest.approx(1), name
    assert ranking.trapezoid(best)[0] == pytest.approx(1)
    assert all(values[0] < 0.25 for values in metrics(worst).values())
    assert ranking.hit(worst, 97)[0] == 0
    assert ranking.median_rank(of([0], [1], [10], [20]), 30) == 6  # 6.5, rounded down
    assert ranking.mean_rank(of([0], [1], [10], [20]), 30) == 35 / 4


def test_without_relevant_items() -> None:
    places = of([], [3], relevant=[0, 1])
    assert ranking.mean(ranking.hit(places, 5)) == 1
    assert ranking.mean_rank(places, 9) == 4
    none = rank(np.ones((2, 1), np.float32), np.ones((3, 1), np.float32), lambda _: NOTHING)
    assert all(np.isnan(ranking.mean(values)) for values in metrics(none).values())
    assert np.isnan(ranking.median_rank(none, 3))


def test_errors() -> None:
    q, g = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)
    first = lambda _: np.asarray([0])  # noqa: E731
    with pytest.raises(RankingError, match=r"\(2, 3\) and gallery \(4, 2\)"):
        rank(q, g[:, :2], first)
    with pytest.raises(RankingError, match=r"query 0 has items outside 0\.\.3"):
        rank(q, g, lambda _: np.asarray([4]))
    with pytest.raises(RankingError, match="item 0 is relevant and junk for query 0"):
        rank(q, g, first, first)
    with pytest.raises(RankingError, match="too large"):
        rank(q * np.float32(1e30), g * np.float32(1e30), first)
