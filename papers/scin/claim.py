"""Pictures of which graders disagree: labels with all that they said, or the majority's.

Every picture is the mean of two digits of different classes, the first with a share between 0.5 and
0.9. Three graders see the shares with an error of their own, name the digits whose share they take
to be above 0.2 and put the more certain one first. Their label is that of SCIN: rank r has the
weight 1 / r, weights are added up over graders and normalised. A linear classifier of the pixels
learns from these weights, or from the class with the most of them, and is asked about pictures of
other digits: what share of the weights it predicts, ``sum_c min(p_c, y_c)``.

The control learns from weights that stand under other pictures' names. Beside it, what decides
nothing, are weights of which the largest is the picture's own and the rest another picture's: they
have the same certainty and no content.

Refuted: 66 % of the weights are predicted after weights and 70 % after the majority. A linear
classifier is unsure enough by itself, and weights make it less sure still; in nats, which punish
being sure and wrong, weights are no worse, 1.104 beside 1.109.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.data.sources.digits import Digits
from vision.metrics.annotators import AnnotatorScores, annotator_scores
from vision.objectives.classify import cross_entropy
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no classifier's number is reported: 2 points")

CLASSES, GRADERS, ERROR, NAMED, DECAY = 10, 3, 0.15, 0.2, 1e-3


def weights(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weighted labels (N, K) of shares (N, K)."""
    total = np.zeros_like(shares)
    for _ in range(GRADERS):
        seen = np.where(shares > 0, shares + rng.normal(0, ERROR, shares.shape), 0)
        order = np.argsort(-seen, axis=1)
        for rank in (1, 2):
            best = order[:, rank - 1]
            rows = np.flatnonzero((seen[np.arange(len(seen)), best] > NAMED) | (rank == 1))
            total[rows, best[rows]] += 1 / rank
    return total / total.sum(1, keepdims=True)


def pictures(
    split: Literal["train", "test"], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64) in 0..1 and weighted labels (N, K)."""
    records = Digits(split).__getitems__(range(len(Digits(split))))
    pixels, labels = records["image"].reshape(-1, 64) / 255, records["label"]
    first = rng.integers(0, len(labels), count)
    second = np.asarray([rng.choice(np.flatnonzero(labels != labels[i])) for i in first])
    share = rng.uniform(0.5, 0.9, count)
    x = share[:, None] * pixels[first] + (1 - share[:, None]) * pixels[second]
    shares = np.zeros((count, CLASSES))
    shares[np.arange(count), labels[first]] = share
    shares[np.arange(count), labels[second]] = 1 - share
    return x, weights(shares, rng)


@jax.jit
def fitted(x: Any, y: Any) -> Any:
    """Weights (D, K) of a linear layer, by 300 steps of Adam on the cross-entropy of all rows."""

    def loss(w: jax.Array) -> jax.Array:
        losses = cross_entropy(x @ w, y, "softmax", 0.0)
        return losses.mean() + DECAY * jnp.sum(w**2)

    optimizer = optax.adam(0.05)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.zeros((x.shape[1], y.shape[1]))
    (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=300)
    return w


def taught(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Logits of new pictures by a classifier that learned weighted labels."""
    known, asked = (
        np.concatenate([part, np.ones((len(part), 1))], 1).astype(np.float32) for part in (x, new)
    )
    return asked @ np.asarray(fitted(known, y.astype(np.float32)))


def measure_seed(seed: int) -> dict[str, AnnotatorScores]:
    rng = np.random.default_rng(seed)
    x, y = pictures("train", 1500, rng)
    new, said = pictures("test", 1000, rng)
    majority = np.eye(CLASSES)[y.argmax(1)]
    rest = np.where(majority > 0, 0, y)[rng.permutation(len(y))] * (majority == 0)
    own = np.where(majority > 0, y.max(1, keepdims=True), 0)
    lent = own + rest * (1 - own.sum(1, keepdims=True)) / np.maximum(
        rest.sum(1, keepdims=True), 1e-9
    )
    arms = {
        "weights": y,
        "majority": majority,
        "permuted": y[rng.permutation(len(y))],
        "lent": lent / lent.sum(1, keepdims=True),
    }
    return {name: annotator_scores(taught(x, labels, new), said) for name, labels in arms.items()}


def test_weights_of_graders_teach_more_than_their_majority(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, arm: str, metric: str = "overlap") -> Side:
        return Side(name, tuple(getattr(row[arm], metric) for row in rows))

    what = "share of the graders' weights that is predicted"
    by_majority = side("majority", "majority")
    record(
        claim="A classifier taught by the weighted labels of graders predicts more of their "
        "weights than one taught by the class with the most weight.",
        expected="refuted",
        compared=Measured(what, side("weights", "weights"), by_majority),
        margin=MARGIN,
        scale=Scale(chance=1 / CLASSES),
        control=Measured(what, side("weights of other pictures", "permuted"), by_majority),
        measured=[
            Measured(what, side("rest of another picture", "lent"), by_majority),
            Measured(
                "cross-entropy, nats",
                side("weights", "weights", "cross_entropy"),
                side("majority", "majority", "cross_entropy"),
            ),
        ],
    )
