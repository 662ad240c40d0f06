"""Evolutionary search: regularised evolution, elitism, and random search as a baseline."""

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
    """An infinite iterator of evaluated candidates.

    The first ``population`` are drawn at random. Then the fittest of ``tournament`` members, drawn
    without replacement, is mutated, and the oldest member is removed (``evolution``; Real et al.,
    Regularized Evolution for Image Classifier Architecture Search, 2019), or the least fit, which
    may be the new one (``elitism``). ``random`` draws every candidate at random. Ties go to the
    older one.

    Args:
      draw: a random candidate.
      mutate: a changed copy of a candidate.
      fitness: larger is better; not NaN.
      rng: of all random choices, also passed to ``draw`` and ``mutate``.

    Yields:
      Candidate and fitness.

    Raises:
      ValueError: invalid sizes or an unknown strategy, on the first ``next``.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy={strategy!r}: one of {', '.join(get_args(Strategy))}")
    if not 1 <= tournament <= population:
        raise ValueError(f"tournament={tournament}: it is 1 to population={population}")
    members: list[tuple[Candidate, float]] = []
    while True:
        if strategy == "random" or len(members) < population:
            candidate = draw(rng)
        else:
            contestants = sorted(rng.choice(len(members), tournament, replace=False).tolist())
            candidate = mutate(members[max(contestants, key=lambda i: members[i][1])][0], rng)
        evaluated = candidate, fitness(candidate)
        yield evaluated
        if strategy == "random":
            continue
        members.append(evaluated)
        if len(members) > population:
            oldest = strategy == "evolution"
            members.pop(0 if oldest else _least(members))


def _least(members: list[tuple[Candidate, float]]) -> int:
    """Index of the least fit member, the last one of ties."""
    return min(reversed(range(len(members))), key=lambda i: members[i][1])
