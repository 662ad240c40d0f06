"""Similarity search and active anomaly search on features of galaxies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vision.blocks.nearest import nearest
from vision.evaluators.image_text.embeddings import normalised
from vision.probes.linear import FitError
from vision.probes.whitening import fit_whitening


def most_similar(features: np.ndarray, query: int, k: int, dimension: int = 40) -> np.ndarray:
    """Indices of the ``k`` rows most similar to row ``query``, best first.

    The similarity is the cosine of ``dimension`` principal components of features (N, D).
    """
    pca = fit_whitening(features, dimension)
    lengths = np.linalg.norm(pca.matrix, axis=0)
    unit = normalised((pca(features) / lengths).astype(np.float32))
    if not 1 <= k < len(unit):
        raise FitError(f"k={k}: there are {len(unit) - 1} others")
    neighbours = nearest(unit[query : query + 1], unit, k + 1)[1][0]
    return neighbours[neighbours != query][:k]


def rank_by_interest(
    features: np.ndarray,
    rate: Callable[[np.ndarray], np.ndarray],
    *,
    first: int = 10,
    batch: int = 10,
    rounds: int = 10,
    dimension: int = 15,
    noise: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Indices of all rows of ``features`` (N, D), the most interesting first, by active learning.

    A Gaussian process on whitened principal components (squared-exponential kernel with the median
    distance as length scale) is fitted to the ratings of ``first`` random rows, then in each round
    also of the ``batch`` rows with the largest mean plus deviation.

    Args:
      features: (N, D).
      rate: rows (M,) int to ratings (M,); called once per round.
      first: number of initially rated rows.
      batch: rows rated per round.
      rounds: number of rounds.
      dimension: number of principal components.
      noise: variance of ratings, relative to that of the process.
      seed: of the random rows.
    """
    x = fit_whitening(features, dimension)(features).astype(np.float64)
    rng = np.random.default_rng(seed)
    sample = x[rng.permutation(len(x))[:500]]
    squared = np.square(sample[:, None] - sample[None]).sum(-1)
    length = max(float(np.median(squared[squared > 0])), 1e-12)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared_distances = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
        return np.exp(-np.maximum(squared_distances, 0) / length / 2)

    rated = rng.permutation(len(x))[: min(first, len(x))]
    ratings = np.asarray(rate(rated), np.float64)
    for remaining in range(rounds, -1, -1):
        inverse = np.linalg.inv(kernel(x[rated], x[rated]) + noise * np.eye(len(rated)))
        cross = kernel(x, x[rated])
        mean = ratings.mean() + cross @ (inverse @ (ratings - ratings.mean()))
        if remaining == 0 or len(rated) == len(x):
            return np.argsort(-mean, kind="stable")
        size = max(float(ratings.std()), 1e-12)
        deviation = np.sqrt(np.maximum(1 - np.einsum("na,ab,nb->n", cross, inverse, cross), 0))
        upper_bound = mean + size * deviation
        upper_bound[rated] = -np.inf
        selected = np.argsort(-upper_bound, kind="stable")[: min(batch, len(x) - len(rated))]
        rated = np.concatenate([rated, selected])
        ratings = np.concatenate([ratings, np.asarray(rate(selected), np.float64)])
    raise AssertionError("the last round returns")
