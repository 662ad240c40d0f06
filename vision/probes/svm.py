"""One-vs-all linear support vector machines on frozen features, optimised to convergence."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from vision.probes.linear import FitError, LinearClassifier, check, starts


def fit_svm(
    x: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    c: float,
    *,
    max_steps: int = 2000,
    tolerance: float = 1e-6,
) -> LinearClassifier:
    """Minimises ``(|w|^2 + b^2) / 2 + c sum_n max(0, 1 - y_n (w x_n + b))^2`` for every class.

    ``y_n`` is 1 for the class and -1 for all others. Squared hinge loss, with the bias penalised
    like the weight of a constant feature, as in scikit-learn's ``LinearSVC(C=c)``. Source: Fan et
    al., "LIBLINEAR", 2008. The classes are independent problems, solved in one run of L-BFGS;
    products are float64.

    Args:
      x: (N, D) float, also a memory map.
      labels: (N,) int in 0..num_classes - 1; a class without examples is fitted to "none".
      num_classes: K, at least 2.
      c: positive.
      max_steps: iterations at most.
      tolerance: of the largest derivative, for an objective divided by ``c N``.

    Returns:
      The classifiers; ``logits`` are their scores, ``loss`` the sum over classes.

    Raises:
      FitError: as ``fit_logistic``, or ``c`` that is not positive.
    """
    check(x, labels, num_classes)
    if not (c > 0 and np.isfinite(c)):
        raise FitError(f"c={c}: must be positive and finite")
    count, width = x.shape
    size = c * count

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width + 1, num_classes)
        gradient = weights / size
        loss = float(np.sum(weights * weights)) / size / 2
        for i in starts(x):
            rows = np.asarray(x[i : i + starts(x).step], np.float64)
            sign = np.full((len(rows), num_classes), -1.0)
            sign[np.arange(len(rows)), labels[i : i + len(rows)]] = 1
            violation = np.maximum(1 - sign * (rows @ weights[:-1] + weights[-1]), 0)
            loss += float(np.sum(violation * violation)) / count
            violation *= sign
            gradient[:-1] -= 2 / count * (rows.T @ violation)
            gradient[-1] -= 2 / count * violation.sum(0)
        return loss, gradient.reshape(-1)

    result = scipy.optimize.minimize(
        value,
        np.zeros((width + 1) * num_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "maxfun": 4 * max_steps, "gtol": tolerance, "ftol": 0.0},
    )
    weights = result.x.reshape(width + 1, num_classes)
    loss = float(result.fun) * size
    return LinearClassifier(weights[:-1], weights[-1], loss, int(result.nit), result.status != 1)
