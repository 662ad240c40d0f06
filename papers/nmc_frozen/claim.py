"""Digits two at a time: nearest means of a frozen network, against sequential fine-tuning.

A network of one hidden layer of 256 units is frozen as it was drawn, untrained even, and the means
of its features are taken task by task. The same network, with a head, learns one pair of digits
after the other, 150 steps of Adam each, without replay; that it knows its last pair is a premise.
The control has means of records under each other's labels. That means are the same in whatever
order tasks come is a test.

Held: 87 beside 19 %.
"""

from __future__ import annotations

from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import NearestCentroid

from configs.parts.digit_mlp import Weights, digits, features, init_weights, nll, right, trained
from papers.nmc_frozen.config import TASKS
from papers.nmc_frozen.method import nearest_class
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Premise, Recorder, Scale, Side
from vision.probes.class_means import empty_means, update

MARGIN = Margin(0.02, rule="the authors compare with methods that we do not have: 2 points")
UNITS, STEPS, RATE = 256, 150, 3e-3


def loss(w: Weights, data: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
    return nll(w, *data)


def parity() -> Parity:
    (x, label), (y, _) = digits("train"), digits("test")
    peer = NearestCentroid().fit(x, label)
    state = empty_means(10, 64)
    for task in TASKS:
        rows = np.isin(label, task)
        state = update(state, x[rows], label[rows])
    assert np.array_equal(nearest_class(state, y), peer.predict(y))
    error = np.abs(np.asarray(state.mean) - peer.centroids_).max() / np.abs(peer.centroids_).max()
    return Parity("scikit-learn", metadata.version("scikit-learn"), float(error))


def measure_seed(seed: int) -> dict[str, float]:
    """Accuracies on all ten digits after the five tasks."""
    (x, label), (new, asked) = digits("train"), digits("test")
    start = init_weights(seed, UNITS)
    h, h_new = (np.asarray(features(start, jnp.asarray(each))) for each in (x, new))
    others = np.random.default_rng(seed).permutation(label)
    means, wrong, tuned = empty_means(10, UNITS), empty_means(10, UNITS), start
    for task in TASKS:
        rows = np.isin(label, task)
        means = update(means, h[rows], label[rows])
        wrong = update(wrong, h[rows], others[rows])
        # Of all tasks as many rows, so that one program does for all.
        picked = np.random.default_rng(seed).choice(np.flatnonzero(rows), 280, replace=False)
        targets = jax.nn.one_hot(label[picked], 10)
        tuned = trained(tuned, loss, (jnp.asarray(x[picked]), targets), STEPS, RATE)
    last = np.isin(asked, TASKS[-1])
    return {
        "means": float(np.mean(nearest_class(means, h_new) == asked)),
        "permuted": float(np.mean(nearest_class(wrong, h_new) == asked)),
        "tuned": float(np.mean(right(tuned, new, asked))),
        "last": float(np.mean(right(tuned, new[last], asked[last]))),
    }


def test_means_of_an_untrained_network_beat_training_it_task_by_task(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, tuned = "top-1 of ten digits after five tasks", side("fine-tuned in turn", "tuned")
    record(
        claim="After five tasks of two digits nearest means of a frozen network are better than "
        "the network fine-tuned on one task after the other.",
        expected="held",
        compared=Measured(what, side("means, untrained network", "means"), tuned),
        margin=MARGIN,
        scale=Scale(),
        premises=[
            Premise("fine-tuned, of the last two digits", side("", "last").values, at_least=0.9)
        ],
        control=Measured(what, side("means under other labels", "permuted"), tuned),
        parity=parity(),
    )
