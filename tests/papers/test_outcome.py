"""Outcomes of claims from the numbers of their seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from vision.papers.measured import Measured, Side
from vision.papers.outcome import (
    HELD,
    REFUTED,
    UNDECIDED,
    Margin,
    Premise,
    Scale,
    decide,
    difference,
    gates,
)

MARGIN = Margin(0.05, rule="half of ten points")
BASE = (0.50, 0.52, 0.48, 0.51, 0.49)


def pairs(gains: Any, base: tuple[float, ...] = BASE, what: str = "top-1") -> Measured:
    new = np.add(base, gains)
    return Measured(what, Side("new", tuple(new.tolist())), Side("old", base))


NONE = pairs(0.0, what="top-1, labels permuted")


def found(compared: Measured, **changes: Any) -> tuple[str, list[str]]:
    """The outcome, and names of the gates that failed."""
    given: dict[str, Any] = {"scale": Scale(chance=0.1), "premises": (), "control": NONE}
    given |= changes
    every = gates(compared, MARGIN, **given)
    seen = difference(compared, given["scale"])
    return decide(seen, MARGIN, every), [gate.name for gate in every if not gate.passed]


def test_the_interval_is_that_of_a_paired_t_test():
    new = (0.61, 0.55, 0.60, 0.49, 0.58)
    seen = difference(Measured("top-1", Side("new", new), Side("old", BASE)), Scale())
    interval = scipy.stats.ttest_rel(new, BASE).confidence_interval(0.95)
    assert (seen.low, seen.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert seen.mean == pytest.approx(np.mean(new) - np.mean(BASE))


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ((0.10, 0.11, 0.09, 0.10, 0.12), HELD),
        ((0.06, 0.02, 0.09, 0.04, 0.12), UNDECIDED),  # better, but not surely by the margin
        ((-0.10, -0.11, -0.09, -0.10, -0.12), REFUTED),
        ((-0.30, 0.20, -0.10, 0.05, -0.12), UNDECIDED),
        ((0.01, 0.01, 0.01, 0.01, 0.01), UNDECIDED),  # better for sure, by less than the margin
    ],
)
def test_the_interval_decides(gains: tuple[float, ...], outcome: str):
    assert found(pairs(gains)) == (outcome, [])
    # Of an error, which is better where it is less.
    assert found(pairs(np.negative(gains)), scale=Scale(worst=1.0, best=0.0, chance=0.9)) == (
        outcome,
        [],
    )


@pytest.mark.parametrize(
    ("compared", "changes", "gate"),
    [
        (pairs((0.2,) * 4, BASE[:4]), {}, "pairs"),
        (pairs((0.2,) * 5, (0.5, 0.5, 0.19, 0.5, 0.5)), {}, "chance"),
        (pairs((0.2,) * 5), {"scale": Scale()}, "chance"),
        (pairs((0.2,) * 5, (0.5, 0.5, 0.93, 0.5, 0.5)), {}, "reach"),
        (pairs((0.2,) * 5), {"premises": (Premise("lost", (0.1, 0.0), at_least=0.05),)}, "premise"),
        (pairs((0.2,) * 5), {"premises": (Premise("error", (0.3,), at_most=0.2),)}, "premise"),
        (pairs((0.2,) * 5), {"control": None}, "control"),
        (pairs((0.2,) * 5), {"control": pairs((0.2,) * 5)}, "control"),
        (pairs((0.2,) * 5), {"control": pairs((0.0,) * 2, BASE[:2])}, "control"),
    ],
)
def test_a_gate_that_fails_in_one_seed_leaves_it_undecided(
    compared: Measured, changes: dict[str, Any], gate: str
):
    assert found(compared, **changes) == (UNDECIDED, [gate])


def test_a_premise_takes_the_place_of_chance():
    learned = Premise("top-1 of the start", (0.9,) * 5, at_least=0.8)
    assert found(pairs((0.2,) * 5), scale=Scale(), premises=(learned,)) == (HELD, [])


def test_where_chance_is_half_of_the_scale_the_baseline_is_half_way_to_its_end():
    auroc = Scale(chance=0.5)
    assert found(pairs((0.1,) * 5, (0.76,) * 5), scale=auroc) == (HELD, [])
    assert found(pairs((0.1,) * 5, (0.74,) * 5), scale=auroc) == (UNDECIDED, ["chance"])


def test_every_gate_says_what_it_saw():
    premise = Premise("reward of the start", (0.1, 0.3), at_least=0.2)
    said = [
        gate.says for gate in gates(pairs((0.2,) * 5), MARGIN, Scale(chance=0.3), [premise], NONE)
    ]
    assert said == [
        "5 pairs, wanted 5",
        "baseline is 0.48 at its worst, wanted 0.6; chance is 0.3",
        "best baseline 0.52 and the margin are at 57% of the scale, wanted 97% at most",
        "reward of the start is 0.1 to 0.3, wanted at least 0.2",
        "top-1, labels permuted, new: +0 [+0, +0] of 5 pairs, must not be above the margin",
    ]


def test_one_pair_has_no_interval():
    seen = difference(pairs((0.2,), (0.5,)), Scale())
    assert (seen.low, seen.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Margin(-0.1, rule="half"), "margin is -0.1"),
        (lambda: Margin(math.nan, rule="half"), "margin is nan"),
        (lambda: Margin(0.1, rule=" "), "rule of the margin"),
        (lambda: Scale(worst=1.0), "no length"),
        (lambda: Premise("x", (), at_least=0.0), "values are"),
        (lambda: Premise("x", (0.1,)), "no bound"),
        (lambda: difference(Measured("x", Side("a", (0.1,))), Scale()), "in pairs"),
        (
            lambda: difference(Measured("x", Side("a", (0.1,)), Side("b", (0.1, 0.2))), Scale()),
            "in pairs",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, words: str):
    with pytest.raises(ValueError, match=words):
        make()
