"""Functional hashing: a search caches the fitness of candidates by the function they compute.

Most candidates of a search over programs or networks are equivalent to earlier ones: summands are
exchanged, or steps added whose result is not used. A candidate is run once on a small fixed input
with fixed seeds, and its hash is that of the outputs v:

    h <- sha256(h, exponent of v), h <- sha256(h, first bits of the mantissa of v)   for each v

The cache maps the hash to the mean fitness and the number of evaluations:

    not in the cache           evaluate and store
    fewer than ``max_evals``   evaluate again and average, for a noisy fitness
    otherwise                  return the mean, at the cost of the hash only; the entry is then
                               removed with ``remove_probability``, so that no overestimate persists

The hashed outputs depend on the search: those of a program on random inputs, or of a network after
a few training steps. Networks need weights for which equivalent genotypes agree:
``symmetric_variables`` draws them by the kind of an operation instead of its position, and equally
for all concatenated states.

Gillard et al., Unified Functional Hashing in Automatic Machine Learning, 2023. Headline: large
savings on NAS-Bench-101 and in the discovery of algorithms (factors unconfirmed). The search is
``papers.functional_hash.search``, cells and their towers are ``vision.models.nasnet``. Difference:
networks are hashed by the logits of one forward pass instead of accuracies during training, which
needs no training and distinguishes more networks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Generic, Literal, TypeVar

import numpy as np

from vision.config.ranges import Fraction, Positive, checked

Candidate = TypeVar("Candidate")
MANTISSA = 52


def functional_hash(values: Iterable[float], mantissa_bits: int = 24) -> int:
    """Hash, an integer below 2^63, of a sequence of numbers, taken as float64.

    Numbers that agree in sign, exponent and the first ``mantissa_bits`` (0 to 52) of the mantissa
    have equal hashes; so do 0 and -0, and all NaN.
    """
    if not 0 <= mantissa_bits <= MANTISSA:
        raise ValueError(f"mantissa_bits={mantissa_bits}: 0 to {MANTISSA}")
    numbers = np.asarray([*values], np.float64) + 0.0  # which turns -0 into 0
    numbers[np.isnan(numbers)] = np.nan
    bits = numbers.view(np.uint64)
    mantissas = (bits & np.uint64(2**MANTISSA - 1)) >> np.uint64(MANTISSA - mantissa_bits)
    parts = np.stack([bits >> np.uint64(MANTISSA), mantissas], -1).astype(">u8").tobytes()
    digest = b""
    for i in range(0, len(parts), 8):
        digest = hashlib.sha256(digest + parts[i : i + 8]).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """Cached fitness of a function.

    Attributes:
      fitness: mean over evaluations.
      count: number of evaluations.
    """

    fitness: float
    count: int


Answer = Literal["miss", "partial", "hit"]


@dataclasses.dataclass
@checked
class Cache(Generic[Candidate]):
    """Calls ``evaluate`` only for functions that are not in the cache; see the module.

    Attributes:
      evaluate: fitness of a candidate, the expensive part.
      name: the functional hash of a candidate.
      max_evals: evaluations of a function before its mean is returned from the cache.
      remove_probability: of removing an entry after a hit.
      rng: of the removals; needed where the probability is above 0.
      known: hash to entry.
      answers: number of misses, of partial hits (fewer than ``max_evals``) and of hits.
    """

    evaluate: Callable[[Candidate], float]
    name: Callable[[Candidate], int]
    max_evals: Positive[int] = 1
    remove_probability: Fraction = 0.0
    rng: np.random.Generator | None = None
    known: dict[int, CacheEntry] = dataclasses.field(default_factory=dict)
    answers: dict[Answer, int] = dataclasses.field(
        default_factory=lambda: {"miss": 0, "partial": 0, "hit": 0}
    )

    def __post_init__(self) -> None:
        if self.remove_probability and self.rng is None:
            raise ValueError("remove_probability above 0 needs rng")

    @property
    def evaluations(self) -> int:
        """How often ``evaluate`` was called."""
        return self.answers["miss"] + self.answers["partial"]

    def __call__(self, candidate: Candidate) -> float:
        """The candidate's fitness: evaluated, averaged or cached."""
        name = self.name(candidate)
        entry = self.known.get(name, CacheEntry(0.0, 0))
        if entry.count < self.max_evals:
            self.answers["partial" if entry.count else "miss"] += 1
            total = entry.fitness * entry.count + self.evaluate(candidate)
            entry = self.known[name] = CacheEntry(total / (entry.count + 1), entry.count + 1)
            return entry.fitness
        self.answers["hit"] += 1
        if self.rng is not None and self.rng.random() < self.remove_probability:
            del self.known[name]
        return entry.fitness
