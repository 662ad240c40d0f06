"""Multinomial logistic regression on frozen features, optimised to convergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize

from vision.config.errors import UserError

_ROWS = 8192  # rows per block: its logits stay in the cache, a memory map on disk


class FitError(UserError):
    """A classifier cannot be fitted to these features and labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearClassifier:
    """``logits = x @ weight + bias``.

    Attributes:
      weight: float64 (D, K).
      bias: float64 (K,).
      loss: the objective at the minimum: nats per example and the penalty.
      steps: iterations of L-BFGS.
      converged: whether the gradient came below the tolerance; False after ``max_steps``.
    """

    weight: np.ndarray
    bias: np.ndarray
    loss: float
    steps: int
    converged: bool

    def logits(self, x: np.ndarray) -> np.ndarray:
        """float32 (N, K) of features (N, D)."""
        weight, bias = self.weight.astype(np.float32), self.bias.astype(np.float32)
        parts = [np.asarray(x[i : i + _ROWS], np.float32) @ weight for i in starts(x)]
        return np.concatenate(parts) + bias


def fit_logistic(
    x: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    decay: float,
    *,
    start: LinearClassifier | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-5,
) -> LinearClassifier:
    """Minimises ``mean(nll) + decay / 2 * sum(weight^2)``; the bias is not penalised.

    scikit-learn's ``LogisticRegression(C=c)`` minimises the same with ``decay = 1 / (N c)``.

    L-BFGS runs in coordinates in which the curvature at equal probabilities, ``cov(x) / K +
    decay``, is the identity. Features of towers have spectra over several orders of magnitude,
    and in their own coordinates most iterations go to the small directions. The minimum is the
    same. Products are float32 in blocks of rows, by the host's BLAS; ``x`` may be a memory map.

    Args:
      x: (N, D) float.
      labels: (N,) int in 0..num_classes - 1.
      num_classes: K, at least 2.
      decay: positive.
      start: initial classifier; None for zeros.
      max_steps: iterations at most.
      tolerance: nats; it stops where half the squared norm of the gradient in those coordinates
        is below. This is about the distance of the loss from its minimum if probabilities are
        nearly equal; it can be some tens of times larger if classes are well separated.

    Raises:
      FitError: shapes, numbers that are not finite, labels outside the classes, one class only.
    """
    check(x, labels, num_classes)
    if not (decay > 0 and np.isfinite(decay)):
        raise FitError(f"decay={decay}: must be positive; without it there may be no minimum")
    count, width = x.shape
    mean, scale = _coordinates(x, num_classes, decay)
    gap: list[float] = []
    unit = num_classes**0.5  # of the bias, for the same curvature
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        inner = flat.reshape(width + 1, num_classes)
        weight = scale @ inner[:-1]
        weight32 = weight.astype(np.float32)
        offset = (inner[-1] * unit - mean @ weight).astype(np.float32)
        loss, gradient, total = 0.0, np.zeros((width, num_classes)), np.zeros(num_classes)
        for i in starts(x):
            rows = np.asarray(x[i : i + _ROWS], np.float32)
            true_entries = np.arange(len(rows)), labels[i : i + _ROWS]
            logits = rows @ weight32
            logits += offset
            logits -= logits.max(1, keepdims=True)
            true_logits = logits[true_entries]
            np.exp(logits, out=logits)
            sums = logits.sum(1, keepdims=True)
            loss += float(np.log(sums, dtype=np.float64).sum() - true_logits.sum(dtype=np.float64))
            logits /= sums
            total += logits.sum(0, dtype=np.float64)
            logits[true_entries] -= 1
            gradient += rows.T @ logits
        total -= counts
        gradient = (gradient - np.outer(mean, total)) / count + decay * weight
        loss = loss / count + decay / 2 * float(np.sum(weight * weight))
        inner_gradient = np.concatenate([scale @ gradient, total[None] * unit / count]).reshape(-1)
        gap.append(0.5 * float(inner_gradient @ inner_gradient))
        return loss, inner_gradient

    def stop_at_tolerance(_: np.ndarray) -> None:
        if gap[-1] <= tolerance:
            raise StopIteration

    first = np.zeros((width + 1, num_classes))
    if start is not None:
        first[:-1] = np.linalg.solve(scale, start.weight)
        first[-1] = (start.bias + mean @ start.weight) / unit
    result = scipy.optimize.minimize(
        value,
        first.reshape(-1),
        jac=True,
        method="L-BFGS-B",
        callback=stop_at_tolerance,
        options={"maxiter": max_steps, "maxfun": 4 * max_steps, "gtol": 0.0, "ftol": 1e-12},
    )
    inner = result.x.reshape(width + 1, num_classes)
    weight = scale @ inner[:-1]
    bias = inner[-1] * unit - mean @ weight
    # Unless it ran out of steps it is within the tolerance, or as near as float32 allows.
    return LinearClassifier(weight, bias, float(result.fun), int(result.nit), result.status != 1)


def choose_decay(
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    decays: Sequence[float],
) -> dict[float, float]:
    """Accuracy on held-out features for every decay, each fit initialised with the previous one.

    Args:
      train: features (N, D) and labels (N,).
      held_out: features (M, D) and labels (M,), of other records.
      num_classes: K.
      decays: any order; the largest is fitted first.
    """
    accuracy: dict[float, float] = {}
    model = None
    for decay in sorted(set(decays), reverse=True):
        model = fit_logistic(*train, num_classes, decay, start=model)
        predicted = model.logits(held_out[0]).argmax(1)
        accuracy[decay] = float(np.mean(predicted == held_out[1]))
    return accuracy


def _coordinates(x: np.ndarray, num_classes: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and the symmetric (D, D) matrix from inner to real coordinates, float64."""
    width = x.shape[1]
    moment, total = np.zeros((width, width)), np.zeros(width)
    for i in starts(x):
        rows = np.asarray(x[i : i + _ROWS], np.float32)
        moment += rows.T @ rows
        total += rows.sum(0, dtype=np.float64)
    mean = total / len(x)
    values, vectors = np.linalg.eigh(moment / len(x) - np.outer(mean, mean))
    curvature = np.maximum(values, 0) / num_classes + decay
    # Eigenvalues below a millionth of the largest are rounding noise of float32 products.
    curvature = np.maximum(curvature, 1e-6 * curvature.max())
    return mean, (vectors * curvature**-0.5) @ vectors.T


def starts(x: np.ndarray) -> range:
    """The first row of every block of rows."""
    return range(0, len(x), _ROWS)


def check(x: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises FitError unless a classifier can be fitted to these."""
    if x.ndim != 2 or labels.shape != x.shape[:1] or not len(x):
        raise FitError(f"features {x.shape} and labels {labels.shape} must be (N, D) and (N,)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise FitError(f"labels are {labels.dtype}; they must be integers")
    for i in starts(x):
        not_finite = ~np.isfinite(x[i : i + _ROWS]).all(1)
        if not_finite.any():
            raise FitError(f"features of row {i + int(not_finite.argmax())} hold NaN or infinity")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise FitError(
            f"labels lie in {labels.min()}..{labels.max()}, but the classes are "
            f"0..{num_classes - 1}; leave unlabelled records out"
        )
    if len(np.unique(labels)) < 2:
        raise FitError(f"all labels are {labels[0]}: a classifier needs two classes at least")
