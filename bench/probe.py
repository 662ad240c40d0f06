"""The linear probe beside scikit-learn's logistic regression: same loss, same cores.

    python -m bench.probe

50,000 features of width 768 and 100 classes, made so that their covariance falls over four orders
of magnitude as that of a tower's embeddings does. Both minimise mean NLL + decay / 2 |W|^2; rows
say how long each took and where it ended, the loss computed in float64 by this script. Runs
alternate.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bench.common import record
from vision.probes.linear import fit_logistic

COUNT, WIDTH, CLASSES = 50_000, 768, 100


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    spectrum = np.logspace(0, -2, WIDTH)  # standard deviations
    mixing = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] * spectrum[:, None]
    labels = rng.integers(0, CLASSES, COUNT)
    centres = 0.4 * rng.normal(size=(CLASSES, WIDTH)) * (rng.random((CLASSES, WIDTH)) < 0.2)
    x = (centres[labels] + rng.normal(size=(COUNT, WIDTH))) @ mixing
    return x.astype(np.float32), labels


def loss(
    x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, decay: float
) -> float:
    logits = x.astype(np.float64) @ weight + bias
    top = logits.max(1)
    sums = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float(np.mean(sums - logits[np.arange(len(x)), labels]) + decay / 2 * np.sum(weight**2))


def main(repeats: int = 3) -> None:
    x, labels = features()
    rows = []
    for decay in (1e-3, 1e-5):
        ours, theirs, fits = [], [], {}
        for _ in range(repeats):
            began = time.perf_counter()
            mine = fit_logistic(x, labels, CLASSES, decay)
            ours.append(time.perf_counter() - began)
            peer = LogisticRegression(C=1 / (COUNT * decay), max_iter=1000)
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                peer.fit(x, labels)
            theirs.append(time.perf_counter() - began)
            fits = {
                "ours_loss": loss(x, labels, mine.weight, mine.bias, decay),
                "theirs_loss": loss(x, labels, peer.coef_.T, np.asarray(peer.intercept_), decay),
                "ours_steps": mine.steps,
                "theirs_steps": int(peer.n_iter_[0]),
            }
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "examples": COUNT,
                "width": WIDTH,
                "classes": CLASSES,
                "decay": decay,
                "speed_ratio": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
                "ours_s": round(statistics.median(ours), 2),
                "theirs_s": round(statistics.median(theirs), 2),
                **{name: round(value, 7) for name, value in fits.items()},
                "repeats": repeats,
            }
        )
        print(rows[-1], flush=True)
    record("probe", rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
