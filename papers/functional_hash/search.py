"""Search by mutation: regularised evolution, elitism, and random search beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar, get_args

import numpy as np

Strategy = Literal["evolution", "elitism", "random"]
Candidate = TypeVar("Candidate")


def search(
    draw: Callable[[np.random.Generator], Candidate],
    mutate: Callable[[Candidate, np.random.Generator], Candidate],
    fitness: Callable[[Candidate], float],
    rng: np.random.Generator,
    strategy: Strategy = "evolution",
    population: int = 50,
    tournament: int = 10,
) -> Iterator[tuple[Candidate, float]]:
    """Proposes candidates one after another, without end: whoever reads stops.

    The first ``population`` are drawn at random. Then the fittest of ``tournament`` drawn from the
    population, without repetition, has a child by one mutation, and the oldest of the population
    dies (``evolution``; Real et al., Regularized Evolution for Image Classifier Architecture
    Search, 2019) or the least fit, which may be the child (``elitism``). ``random`` draws always.
    Of equally fit ones the older is preferred.

    Args:
      draw: a random candidate.
      mutate: a changed copy of a candidate.
      fitness: larger is better; not NaN.
      rng: of all decisions, also handed to ``draw`` and ``mutate``.

    Yields:
      Candidate and fitness.

    Raises:
      ValueError: sizes or a strategy that do not go, on the first ``next``.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy={strategy!r}: one of {', '.join(get_args(Strategy))}")
    if not 1 <= tournament <= population:
        raise ValueError(f"tournament={tournament}: it is 1 to population={population}")
    alive: list[tuple[Candidate, float]] = []
    while True:
        if strategy == "random" or len(alive) < population:
            candidate = draw(rng)
        else:
            met = sorted(rng.choice(len(alive), tournament, replace=False).tolist())
            candidate = mutate(alive[max(met, key=lambda i: alive[i][1])][0], rng)
        found = candidate, fitness(candidate)
        yield found
        if strategy == "random":
            continue
        alive.append(found)
        if len(alive) > population:
            oldest = strategy == "evolution"
            alive.pop(0 if oldest else _least(alive))


def _least(alive: list[tuple[Candidate, float]]) -> int:
    """The last of those that are least fit."""
    return min(reversed(range(len(alive))), key=lambda i: alive[i][1])
