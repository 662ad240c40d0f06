"""Few-shot episodes on frozen features: sampling of records, and classifiers fitted to them.

Heads are functions of the features of all episodes at once, ``support`` float64 (E, W, K, D) of E
episodes with W classes and K examples each, and ``query`` (E, M, D); they give scores (E, M, W).
They work on Gram matrices of the examples, (E, W K, W K), whatever the width of the features.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.metrics.arrays import blocks
from vision.probes.linear import FitError

_STEPS = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """Row indices of the features of each episode, without repetition within an episode.

    Attributes:
      classes: int64 (E, W), in random order.
      support: int64 (E, W, K).
      query: int64 (E, W, Q).
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray


def draw_episodes(
    labels: np.ndarray, ways: int, shots: int, queries: int, count: int, seed: int
) -> Episodes:
    """Draws classes and their examples uniformly without replacement; deterministic in ``seed``.

    Classes with fewer than ``shots + queries`` examples are never drawn.

    Args:
      labels: (N,) int, 0 or more.
      ways, shots, queries, count: W, K, Q and E, all positive.
      seed: of the random generator.

    Raises:
      FitError: fewer than ``ways`` classes have enough examples.
    """
    per_class = shots + queries
    order = np.argsort(labels, kind="stable")
    names, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    usable = np.flatnonzero(sizes >= per_class)
    if len(usable) < ways:
        raise FitError(
            f"{ways}-way episodes of {shots} + {queries} examples: {len(usable)} of {len(names)} "
            f"classes have {per_class} examples; ask for fewer ways, shots or queries"
        )
    rng = np.random.default_rng([seed, ways, shots, queries])
    chosen = np.empty((count, ways), np.int64)
    for block in blocks(count, len(usable)):
        keys = rng.random((block.stop - block.start, len(usable)))
        chosen[block] = usable[np.argsort(keys, axis=1)[:, :ways]]
    rows = np.empty((count, ways, per_class), np.int64)
    largest = int(sizes[usable].max())
    for block in blocks(count, ways * largest):
        keys = rng.random((block.stop - block.start, ways, largest))
        keys[np.arange(largest) >= sizes[chosen[block], None]] = 2.0
        nearest = np.argpartition(keys, per_class - 1, axis=2)[..., :per_class]
        by_key = np.argsort(np.take_along_axis(keys, nearest, 2), axis=2)
        positions = np.take_along_axis(nearest, by_key, 2)
        rows[block] = order[starts[chosen[block], None] + positions]
    return Episodes(names[chosen], rows[..., :shots], rows[..., shots:])


def centroids(support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Negative squared distance to each class mean, up to a constant per query.

    Snell et al., "Prototypical Networks for Few-shot Learning", 2017; on features of length 1 the
    nearest centroid of Wang et al., "SimpleShot", 2019.
    """
    means = support.mean(2)
    return 2 * query @ means.swapaxes(1, 2) - np.square(means).sum(2)[:, None]


def ridge(support: np.ndarray, query: np.ndarray, decay: float) -> np.ndarray:
    """Least squares to 1 for the class and -1 for the others; the bias is not penalised.

    Minimises ``mean_n |y_n - x_n W - b|^2 + decay |W|^2`` in every episode.
    """
    products, query_products, one_hot = _products(support, query)
    count = products.shape[1]
    targets = 2 * one_hot - 1
    mean = targets.mean(1, keepdims=True)
    dual = np.linalg.solve(products + decay * count * np.eye(count), targets - mean)
    return query_products @ dual + mean


def logistic(
    support: np.ndarray, query: np.ndarray, c: float = 1.0, tolerance: float = 1e-7
) -> np.ndarray:
    """Softmax regression: minimises ``c sum_n nll_n + |W|^2 / 2`` in every episode.

    The same as scikit-learn's ``LogisticRegression(C=c)``, by accelerated gradient steps of all
    episodes together until the largest gradient is below ``tolerance``.

    Raises:
      FitError: no convergence after 2,000 steps: feature norms are too large for this ``c``.
    """
    products, query_products, one_hot = _products(support, query)
    count = products.shape[1]
    decay = 1 / (c * count)
    # The softmax's curvature is at most 1/2; with centred features weights and bias decouple.
    rate = 1 / (np.abs(products).sum(2).max(1)[:, None, None] / count / 2 + decay)
    bias_rate = 2.0
    dual, bias = np.zeros(one_hot.shape), np.zeros((len(one_hot), 1, one_hot.shape[2]))
    dual_ahead, bias_ahead, momentum_t = dual, bias, np.ones((len(one_hot), 1, 1))
    for _ in range(_STEPS):
        z = products @ dual_ahead + bias_ahead
        p = np.exp(z - z.max(2, keepdims=True))
        p /= p.sum(2, keepdims=True)
        # Dual coefficients: equivalent to gradient steps of the weights themselves.
        gradient = (p - one_hot) / count + decay * dual_ahead
        bias_gradient = (p - one_hot).mean(1, keepdims=True)
        if max(np.abs(gradient).max(), np.abs(bias_gradient).max()) * count <= tolerance:
            return query_products @ dual_ahead + bias_ahead
        new, new_bias = dual_ahead - rate * gradient, bias_ahead - bias_rate * bias_gradient
        uphill = np.sum((products @ gradient) * (new - dual), (1, 2), keepdims=True)
        uphill += np.sum(bias_gradient * (new_bias - bias), (1, 2), keepdims=True)
        # Momentum restarts where it leads uphill (O'Donoghue and Candes, 2015).
        momentum_t = np.where(uphill > 0, 1.0, momentum_t)
        next_momentum_t = (1 + np.sqrt(1 + 4 * momentum_t**2)) / 2
        momentum = (momentum_t - 1) / next_momentum_t
        dual_ahead = new + momentum * (new - dual)
        bias_ahead = new_bias + momentum * (new_bias - bias)
        dual, bias, momentum_t = new, new_bias, next_momentum_t
    raise FitError(
        f"logistic heads with c={c} have not converged after {_STEPS} steps; make c smaller, or "
        "the features shorter"
    )


def _products(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products (E, N, N) of examples and (E, M, N) of queries with them, all less the mean
    of the examples, and the classes (E, N, W) as ones and zeros."""
    episodes, ways, shots, width = support.shape
    flat = support.reshape(episodes, ways * shots, width)
    centre = flat.mean(1, keepdims=True)
    flat, query = flat - centre, query - centre
    transposed = flat.swapaxes(1, 2)
    one_hot = np.repeat(np.eye(ways), shots, axis=0)
    return (
        flat @ transposed,
        query @ transposed,
        np.broadcast_to(one_hot, (episodes, *one_hot.shape)),
    )
