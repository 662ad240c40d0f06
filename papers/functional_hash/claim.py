"""Programs of seven instructions that search for a polynomial, with and without the cache.

Registers r0 and r1 hold x and y, r2 and r3 start at 0; an instruction writes the sum, difference or
product of two registers into r2 or r3, and r3 is the answer. Wanted is x x y - x y + x on 64 points
in -2..2. Regularised evolution (population 50, tournament 10) is stopped after 600 evaluations, in
which the cache counts a function once however many programs there are for it; a mutation replaces
one instruction. A search also ends with an exact program or 20,000 proposals. Ten seeds. Beside
them random search.

The recorded numbers are of 10 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from papers.functional_hash.method import Cache, functional_hash
from papers.functional_hash.search import Strategy, search
from vision.papers.claims import Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.5, rule="no factor is confirmed: half of a unit of squared error")

LENGTH, EVALUATIONS, MOST_PROPOSALS = 7, 600, 20_000
SEEDS, EXACT = tuple(range(10)), 1e-12
Program = tuple[tuple[int, int, int, int], ...]
OPERATIONS = (np.add, np.subtract, np.multiply)
FIXED = np.random.default_rng(202).normal(size=(2, 4))


def run(program: Program, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    registers = [x, y, np.zeros_like(x), np.zeros_like(x)]
    for operation, into, left, right in program:
        registers[into] = OPERATIONS[operation](registers[left], registers[right])
    return registers[3]


def instruction(rng: np.random.Generator) -> tuple[int, int, int, int]:
    operation, into, left, right = rng.integers((3, 2, 4, 4)).tolist()
    return operation, into + 2, left, right


def draw(rng: np.random.Generator) -> Program:
    return tuple(instruction(rng) for _ in range(LENGTH))


def mutate(program: Program, rng: np.random.Generator) -> Program:
    place = int(rng.integers(LENGTH))
    return (*program[:place], instruction(rng), *program[place + 1 :])


def searched(seed: int, cached: bool, strategy: Strategy = "evolution") -> dict[str, float]:
    """Best mean square error after the evaluations that are allowed, and proposals for each."""
    x, y = np.random.default_rng(seed).uniform(-2, 2, (2, 64))
    wanted = x * x * y - x * y + x

    def fitness(program: Program) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            error = float(np.mean((run(program, x, y) - wanted) ** 2))
        return -error if np.isfinite(error) else -1e30

    def name(program: Program) -> int:
        with np.errstate(over="ignore", invalid="ignore"):
            return functional_hash(run(program, *FIXED))

    calls = 0

    def counted(program: Program) -> float:
        nonlocal calls
        calls += 1
        return fitness(program)

    evaluate: Any = Cache(counted, name) if cached else counted
    best, proposals = -np.inf, 0
    for _, value in search(draw, mutate, evaluate, np.random.default_rng(seed), strategy):
        best, proposals = max(best, value), proposals + 1
        if calls >= EVALUATIONS or proposals >= MOST_PROPOSALS or -best < EXACT:
            break
    return {"error": -best, "proposals": proposals / calls}


def test_a_function_is_paid_once(record: Recorder):
    rows: dict[str, list[dict[str, float]]] = {}
    for strategy in ("evolution", "random"):
        for cached in (True, False):
            rows[f"{strategy}, {'cache' if cached else 'none'}"] = [
                searched(seed, cached, strategy) for seed in SEEDS
            ]

    def side(arm: str, key: str) -> Side:
        return Side(arm, tuple(row[key] for row in rows[arm]))

    def median(arm: str) -> float:
        return float(np.median([row["error"] for row in rows[arm]]))

    record(
        claim="Regularised evolution with a cache of functions finds a program with a lower error"
        " than without, after as many evaluations.",
        expected="undecided",
        compared=Measured(
            "MSE of the best", side("evolution, cache", "error"), side("evolution, none", "error")
        ),
        margin=MARGIN,
        scale=Scale(worst=4.0, best=0.0),
        control=None,
        measured=[
            Measured(
                "MSE of the best", side(f"{name}, cache", "error"), side(f"{name}, none", "error")
            )
            for name in ("evolution", "random")
        ]
        + [
            Measured(
                "share of seeds that are exact",
                *(
                    Side(arm, tuple(float(row["error"] < EXACT) for row in rows[arm]))
                    for arm in ("evolution, cache", "evolution, none")
                ),
            ),
            Measured("proposals per evaluation", side("evolution, cache", "proposals")),
        ],
        seeds=SEEDS,
    )
