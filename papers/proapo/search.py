"""Evolutionary search over sets of sentences that make up the classes' vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.sparse import csr_array
from scipy.special import logsumexp

from vision.config.ranges import NonNegative, Positive, checked


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """S sentences of K classes; G choices, each of which takes some of them in.

    Attributes:
      vectors: unit vectors (S, D).
      classes: int (S,), whom a sentence tells of.
      choices: int (S,), 0..G - 1: a template is one choice with a sentence for every class, a
        description one with one sentence.
      base: (K, D), added to every class: zeros, or what a class has that is not searched.
    """

    vectors: np.ndarray
    classes: np.ndarray
    choices: np.ndarray
    base: np.ndarray

    @property
    def size(self) -> int:
        return int(self.choices.max()) + 1

    def class_vectors(self, taken: np.ndarray) -> np.ndarray | None:
        """Unit vectors (K, D) for choices bool (G,); None where a class has no sentence."""
        rows = np.flatnonzero(taken[self.choices])
        shape = len(self.base), len(self.vectors)
        members = csr_array((np.ones(len(rows)), (self.classes[rows], rows)), shape)
        total = self.base + members @ self.vectors
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return total / length if (length > 0).all() else None

    def only(self, kept: np.ndarray) -> Pool:
        """Without the choices that bool (G,) leaves out; the others are numbered anew."""
        rows = kept[self.choices]
        number = np.cumsum(kept, dtype=np.int64) - 1
        return Pool(self.vectors[rows], self.classes[rows], number[self.choices[rows]], self.base)


@dataclasses.dataclass(frozen=True)
@checked
class Fitness:
    """F = top1 weight x top-1 + top5 weight x top-5 - entropy weight x cross-entropy, accuracies in
    percent and cross-entropy in nats.

    Attributes:
      top1: weight of the accuracy.
      top5: weight of the share of images whose class is among the five likest.
      entropy: weight of the cross-entropy.
      scale: s of the logits s x . t.
    """

    top1: NonNegative[float]
    top5: NonNegative[float]
    entropy: NonNegative[float]
    scale: Positive[float] = 100.0

    def __call__(self, images: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
        """Of unit vectors (N, D), labels int (N,) and classes' vectors (K, D)."""
        logits = self.scale * images @ classes.T
        true = np.take_along_axis(logits, labels[:, None], 1)
        rank = (logits > true).sum(1)
        loss = np.mean(np.asarray(logsumexp(logits, axis=1)) - true[:, 0])
        right, near = 100 * np.mean(rank < 1), 100 * np.mean(rank < 5)
        return float(self.top1 * right + self.top5 * near - self.entropy * loss)


@dataclasses.dataclass(frozen=True)
@checked
class Plan:
    """How many candidates an epoch has.

    Attributes:
      epochs: how often survivors have children; 0 gives the best of the first.
      kept: survivors of an epoch.
      edits: children of a survivor by each of adding, removing and replacing one choice.
      mutations: children of a random survivor by two edits.
      crossovers: unions and random parts of the union of two survivors.
    """

    epochs: NonNegative[int] = 6
    kept: Positive[int] = 4
    edits: NonNegative[int] = 8
    mutations: NonNegative[int] = 8
    crossovers: NonNegative[int] = 16


def evolve(
    pool: Pool,
    first: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    fitness: Fitness,
    plan: Plan,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[float]]:
    """The fittest choices, bool (G,), and the fitness of the best before and after every epoch.

    Survivors compete with their children, so that fitness never falls; equal ones keep their order.

    Args:
      pool: of sentences.
      first: candidates bool (C, G), one at least that leaves no class without a sentence.
      images: unit vectors (N, D).
      labels: int (N,).
      fitness: what is maximised on them.
      plan: numbers of candidates.
      rng: of all that is drawn.

    Raises:
      ValueError: every first candidate leaves a class without a sentence.
    """
    known: dict[bytes, float] = {}

    def value(taken: np.ndarray) -> float:
        key = np.packbits(taken).tobytes()
        if key not in known:
            made = pool.class_vectors(taken)
            known[key] = -np.inf if made is None else fitness(images, labels, made)
        return known[key]

    def fittest(candidates: list[np.ndarray]) -> list[np.ndarray]:
        distinct: dict[bytes, np.ndarray] = {}
        for candidate in candidates:
            distinct.setdefault(np.packbits(candidate).tobytes(), candidate)
        return sorted(distinct.values(), key=lambda c: -value(c))[: plan.kept]

    best = fittest(list(first))
    if value(best[0]) == -np.inf:
        raise ValueError("every first candidate leaves a class without a sentence")
    history = [value(best[0])]
    for _ in range(plan.epochs):
        children = [
            _edited(parent, kind, rng)
            for parent in best
            for kind in ("add", "remove", "replace")
            for _ in range(plan.edits)
        ]
        for _ in range(plan.mutations):
            child = best[rng.integers(len(best))]
            for kind in rng.choice(["add", "remove", "replace"], 2):
                child = _edited(child, kind, rng)
            children.append(child)
        for i in range(plan.crossovers):
            a, b = (best[rng.integers(len(best))] for _ in range(2))
            both = a | b
            children.append(both if i % 2 else both & (rng.random(len(both)) < 0.5))
        best = fittest([*best, *children])
        history.append(value(best[0]))
    return best[0], history


def useful(
    pool: Pool,
    images: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    alike: float = 0.98,
) -> np.ndarray:
    """bool (G,): choices that neither harm by themselves nor repeat an earlier one.

    One harms if top-1 with it alone is lower than with ``reference``, classes' vectors (K, D), by
    more than 200 / K + 0.1 points. It repeats one that tells of the same classes if the mean cosine
    of their sentences is above ``alike``.
    """
    num_classes = len(pool.base)

    def top1(classes: np.ndarray) -> float:
        return 100 * float(np.mean((images @ classes.T).argmax(1) == labels))

    least = top1(reference) - 200 / num_classes - 0.1
    kept = np.zeros(pool.size, bool)
    earlier: dict[bytes, list[np.ndarray]] = {}
    for choice in range(pool.size):
        rows = np.flatnonzero(pool.choices == choice)
        rows = rows[np.argsort(pool.classes[rows], kind="stable")]
        same = earlier.setdefault(pool.classes[rows].tobytes(), [])
        own = pool.vectors[rows]
        made = pool.class_vectors(np.arange(pool.size) == choice)
        repeats = any(np.sum(own * other) / len(own) > alike for other in same)
        if repeats or (made is not None and top1(made) < least):
            continue
        kept[choice] = True
        same.append(own)
    return kept


def _edited(taken: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    made = taken.copy()
    inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
    if kind != "add" and len(inside):
        made[rng.choice(inside)] = False
    if kind != "remove" and len(outside):
        made[rng.choice(outside)] = True
    return made
