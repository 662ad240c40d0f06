"""What a functional hash takes for the same, and what a cache of functions never pays twice."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from papers.functional_hash.method import Cache, functional_hash
from papers.functional_hash.search import search
from papers.functional_hash.tower_hash import hash_of_tower, symmetric_variables
from vision.models.nasnet import Cell, Genotype, NasNet

X, Y = np.random.default_rng(0).normal(size=(2, 20))


def test_the_same_function_has_the_same_hash():
    assert functional_hash(X + Y) == functional_hash(Y + X)
    assert functional_hash(X - Y) != functional_hash(Y - X)
    assert functional_hash(X + Y) != functional_hash((X + Y)[::-1])
    assert functional_hash([-0.0, math.nan]) == functional_hash([0.0, -math.nan])
    assert functional_hash([-0.5]) != functional_hash([0.5])
    assert 0 <= functional_hash(X) < 2**63


def test_bits_of_the_mantissa_say_how_near_is_the_same():
    near = X * (1 + 2**-50)
    assert functional_hash(X, 52) != functional_hash(near, 52)
    assert functional_hash([1.0], 24) == functional_hash([1 + 2**-25], 24)
    assert functional_hash([1.0], 24) != functional_hash([1 + 2**-24], 24)
    with pytest.raises(ValueError, match="mantissa_bits"):
        functional_hash(X, 53)


def test_a_full_hit_never_evaluates_and_partial_ones_average():
    rewards = iter([1.0, 3.0])  # a third call would raise StopIteration

    def total(pair: tuple[int, int]) -> int:
        return sum(pair)

    cache = Cache(lambda _: next(rewards), name=total, max_evals=2)
    assert [cache(pair) for pair in ((1, 2), (2, 1), (0, 3), (3, 0))] == [1, 2, 2, 2]
    assert cache.answers == {"miss": 1, "partial": 1, "hit": 2}
    assert cache.evaluations == 2


def test_a_function_may_be_forgotten_after_a_full_hit():
    calls = []
    cache = Cache(
        lambda _: calls.append(0) or 1.0,
        name=lambda _: 0,
        remove_probability=1.0,
        rng=np.random.default_rng(0),
    )
    assert [cache(0) for _ in range(4)] == [1.0] * 4
    assert cache.answers == {"miss": 2, "partial": 0, "hit": 2}
    assert len(calls) == 2


def test_evolution_forgets_the_oldest_and_elitism_the_least():
    """Fitness is the candidate itself; a child is one more than its parent, then 0 for ever."""

    def run(strategy: str) -> list[float]:
        drawn = iter([5, 9, 1])
        proposals = search(
            lambda rng: next(drawn),
            lambda parent, rng: parent - 1,
            float,
            np.random.default_rng(0),
            strategy,  # pyright: ignore[reportArgumentType]
            population=3,
            tournament=3,
        )
        return [next(proposals)[0] for _ in range(7)]

    # 9 has children until it is the oldest; then its first child is the fittest.
    assert run("evolution") == [5, 9, 1, 8, 8, 7, 7]
    assert run("elitism") == [5, 9, 1, 8, 8, 8, 8]
    with pytest.raises(ValueError, match="tournament"):
        next(search(lambda r: 0, lambda c, r: c, float, np.random.default_rng(0), tournament=51))
    counted = Counter(
        candidate
        for (candidate, _), _ in zip(
            search(
                lambda rng: int(rng.integers(2)),
                lambda c, r: -1,
                float,
                np.random.default_rng(0),
                "random",
                3,
                1,
            ),
            range(20),
            strict=False,
        )
    )
    assert set(counted) == {0, 1}


def tower(*steps: str) -> NasNet:
    cell = Cell(steps)
    return NasNet(Genotype(cell, cell), depth=2, stages=1, filters=2, stem=1, num_classes=2)


def test_cells_that_compute_the_same_have_one_name():
    images = np.random.default_rng(1).normal(size=(2, 4, 4, 1)).astype(np.float32)
    names = [
        hash_of_tower(tower(*steps), images)  # pyright: ignore[reportArgumentType]
        for steps in (
            ("avg3(0)+max3(1)", "sep3(0)+avg3(1)"),
            ("max3(1)+avg3(0)", "avg3(1)+sep3(0)"),  # summands exchanged
            ("sep3(0)+avg3(1)", "avg3(0)+max3(1)"),  # steps exchanged
            ("avg3(0)+max3(1)", "sep3(1)+avg3(0)"),
        )
    ]
    assert names[0] == names[1] == names[2]
    assert names[0] != names[3]


def test_symmetric_weights_are_those_of_the_operation():
    params, _ = symmetric_variables(tower("sep3(0)+avg3(1)", "avg3(0)+sep3(1)"), (1, 4, 4, 1))
    left, right = (
        params["block00"][f"{side}_sep3_depthwise0"]["kernel"] for side in ("step0l", "step1r")
    )
    np.testing.assert_array_equal(left, right)
    other = params["block01"]["step0l_sep3_depthwise0"]["kernel"]
    assert np.abs(np.asarray(left - other)).min() > 0
