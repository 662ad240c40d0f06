"""Retrieval of instances beside a walk down every ranking and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests.evaluators.linear_dual import WIDTH, data, run
from vision.blocks.ranking import RankingError
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluators.features.instances import InstanceRetrieval

RNG = np.random.default_rng(0)
COUNT, ASKED = 50, 9
GALLERY = RNG.normal(size=(COUNT, WIDTH)).astype(np.float32)
QUERY = RNG.normal(size=(ASKED, WIDTH)).astype(np.float32)


def lists(queries: int, seed: int = 1) -> dict[str, Any]:
    """Disjoint lists of different lengths, filled up with -1; some are empty."""
    rng = np.random.default_rng(seed)
    found = {name: np.full((queries, 8), -1, np.int32) for name in ("easy", "hard", "junk")}
    for query in range(queries):
        order = rng.permutation(COUNT)
        for each in found.values():
            size = int(rng.integers(0, 8))
            each[query, rng.permutation(8)[:size]] = order[:size]
            order = order[size:]
    found["hard"][0] = found["easy"][:2] = -1
    return found


def walked(
    scores: np.ndarray, right: set[int], ignored: set[int], ks: tuple[int, ...]
) -> dict[str, float]:
    """The protocol read aloud: go down the ranking, pass over junk, count."""
    ranking = [int(i) for i in np.argsort(-scores, kind="stable") if int(i) not in ignored]
    area, hits_so_far, before = 0.0, 0, 1.0
    for at, item in enumerate(ranking, 1):
        if item in right:
            before = hits_so_far / (at - 1) if at > 1 else 1.0
            hits_so_far += 1
            area += (before + hits_so_far / at) / 2 / len(right)
    hits = [item in right for item in ranking]
    metrics = {"map": area}
    metrics |= {f"r{k}": sum(hits[:k]) / len(right) for k in ks}
    return metrics | {f"p{k}": sum(hits[:k]) / k for k in ks}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def expected(
    scores: np.ndarray, given: dict[str, np.ndarray], right: str, ignored: str, own: bool
) -> dict[str, float]:
    rows, plain = [], []
    for query in range(len(scores)):
        items = {
            name: set(each[query][each[query] >= 0].tolist()) - ({query} if own else set())
            for name, each in given.items()
        }
        wanted = set().union(*(items[name] for name in right.split()))
        junk = set().union(*(items[name] for name in ignored.split())) | ({query} if own else set())
        if wanted:
            rows.append(walked(scores[query], wanted, junk, (1, 4)))
            kept = np.asarray([i not in junk for i in range(COUNT)])
            truth = np.asarray([i in wanted for i in range(COUNT)])
            plain.append(average_precision_score(truth[kept], scores[query][kept]))
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**means, "map_plain": float(np.mean(plain)), "queries": len(rows)}


CASES = {
    "easy": ("easy", "junk hard"),
    "medium": ("easy hard", "junk"),
    "hard": ("hard", "junk easy"),
}


@pytest.mark.parametrize("devices", [1, 8])
def test_other_queries_are_a_walk_down_the_ranking(devices: int):
    given = lists(ASKED)
    asked = InstanceRetrieval(data(image=GALLERY), data(image=QUERY, **given), k=(1, 4))
    got = run(asked, devices)
    for name, (right, ignored) in CASES.items():
        for number, value in expected(
            cosines(QUERY, GALLERY), given, right, ignored, False
        ).items():
            assert got[f"{name}_{number}"] == pytest.approx(value, abs=1e-6), (name, number)
    assert got["medium_queries"] + got["without_match"] == ASKED
    assert got["without_match"] == sum(
        (given["easy"][q] < 0).all() and (given["hard"][q] < 0).all() for q in range(ASKED)
    )
    assert (got["gallery"], got["without_match"] > 0) == (COUNT, True)
    assert not {"nonfinite", "unread"} & got.keys()


def test_a_query_of_the_gallery_is_not_in_its_own_ranking():
    given = lists(COUNT, 4)
    given["easy"][5, 0] = 5  # names itself
    got = run(InstanceRetrieval(data(image=GALLERY, **given), k=(1, 4)))
    for name, (right, ignored) in CASES.items():
        for number, value in expected(
            cosines(GALLERY, GALLERY), given, right, ignored, True
        ).items():
            assert got[f"{name}_{number}"] == pytest.approx(value, abs=1e-6), (name, number)


def test_junk_neither_helps_nor_hurts():
    easy = np.asarray([[1]], np.int32)
    image = np.zeros((4, WIDTH))
    image[:, 0], image[:, 1] = 1, (0.1, 0.3, 0.2, 5)

    def asked(**given: Any) -> dict[str, Any]:
        query = data(image=image[:1], easy=easy, **given)
        names = {name: "" for name in ("hard", "junk") if name not in given}
        return run(InstanceRetrieval(data(image=image), query, (1,), **names))

    # Above the right one is item 2, and item 0, which is the query's own picture.
    assert asked()["easy_map_plain"] == pytest.approx(1 / 3)
    some = asked(junk=np.asarray([[0, -1]], np.int32))
    assert (some["easy_map_plain"], some["easy_r1"]) == (0.5, 0)
    assert asked(junk=np.asarray([[0, 2]], np.int32))["easy_r1"] == 1
    assert "hard_map" not in some
    assert some["medium_map"] == some["easy_map"]


def test_what_is_not_finite_is_not_found_and_is_counted():
    image, query = GALLERY.copy(), QUERY[:2].copy()
    image[7], query[1] = np.nan, 0
    easy = np.asarray([[7, 8, -1], [9, -1, -1]], np.int32)
    query[0] = image[8]
    evaluator = InstanceRetrieval(data(image=image), data(image=query, easy=easy), hard="", junk="")
    got = run(evaluator)
    assert got["nonfinite"] == 2
    assert got["easy_r10"] == (0.5 + 0) / 2
    assert got["easy_map_plain"] == (0.5 + 0) / 2


def test_items_that_cannot_be_read_are_never_found_and_are_counted():
    class Broken(Arrays):
        def __getitems__(self, indices: Any) -> Any:
            if 8 in indices:
                raise DataError("no such picture")
            return super().__getitems__(indices)

        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 8:
                raise DataError("no such picture")
            return super().__getitem__(index)

    source = Broken({"image": GALLERY.reshape(COUNT, 3, 4, 1)}, "broken")
    gallery = EvalData(source, batch_size=16, threads=0, on_error="mask")
    easy = np.asarray([[8, 9]], np.int32)
    query = data(image=GALLERY[9:10], easy=easy)
    got = run(InstanceRetrieval(gallery, query, hard="", junk=""))
    assert (got["unread"], got["gallery"]) == (1, COUNT - 1)
    assert (got["easy_r10"], got["easy_map_plain"]) == (0.5, 0.5)


def test_lists_that_are_wrong_are_named():
    def asked(**given: Any) -> dict[str, Any]:
        query = data(image=QUERY[:2], **{**lists(2), **given})
        return run(InstanceRetrieval(data(image=GALLERY), query))

    with pytest.raises(RankingError, match=r"'hard' of query 1 of made .* outside 0\.\.49"):
        asked(hard=np.asarray([[1], [50]], np.int32))
    with pytest.raises(ValueError, match=r"'junk' is float32.* filled up with -1"):
        asked(junk=np.zeros((2, 1), np.float32))
    with pytest.raises(RankingError, match="item 4 is relevant and junk for query 0"):
        asked(**{name: np.full((2, 1), 4, np.int32) for name in ("easy", "junk")})
    nothing = np.full((2, 1), -1, np.int32)
    with pytest.raises(DataError, match="no query of made has an easy or a hard item"):
        asked(easy=nothing, hard=nothing)
    with pytest.raises(ValueError, match=r"made has no 'easy'; it has .*image"):
        run(InstanceRetrieval(data(image=GALLERY)))
    wrong: Any = ({"k": ()}, {"k": (0,)}, {"easy": "", "hard": ""})
    for arguments in wrong:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            InstanceRetrieval(data(image=GALLERY), **arguments)
