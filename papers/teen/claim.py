"""Six base digits and four new ones with five records each, with and without calibration.

A network of one hidden layer learns the base digits; its head reads unit vectors by their cosines.
Numbers are means over 30 draws of the five records, for each of five networks. New means are moved
by a tenth towards the base means that are like them. The control moves them as far towards all base
means alike (an inverse temperature of next to nothing). That the network knows its base digits is
the premise.

Undecided: better by 0.3 to 0.8 points, less than the margin, and as much with all base means alike:
which of them is like a new one does not matter here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, digits, features, init_weights, trained
from papers.teen.method import calibrated
from vision.blocks.similarity import unit
from vision.objectives.classify import cross_entropy
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="figures are unconfirmed: 2 points")
BASE, SHOTS, DRAWS, COSINES = 6, 5, 30, 16.0
UNITS, STEPS, RATE = 64, 200, 3e-3


def loss(w: Weights, data: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
    x, targets = data
    said = COSINES * unit(features(w, x)) @ unit(w["head"]["kernel"].T).T
    return cross_entropy(said, targets, "softmax", 0.0).mean()


def measure_seed(seed: int) -> dict[str, float]:
    """Harmonic means, and accuracies on base and new digits, of every arm."""
    (x, label), (new, asked) = digits("train"), digits("test")
    rng, start = np.random.default_rng(seed), init_weights(seed, UNITS, BASE)
    kernel = rng.normal(0, UNITS**-0.5, (UNITS, BASE)).astype(np.float32)
    start["head"]["kernel"] = jnp.asarray(kernel)
    rows = label < BASE
    data = (jnp.asarray(x[rows]), jax.nn.one_hot(label[rows], BASE))
    w = trained(start, loss, data, STEPS, RATE)
    h, h_new = (unit(features(w, jnp.asarray(each))) for each in (x, new))
    base = unit(jnp.stack([h[label == c].mean(0) for c in range(BASE)]))
    arms = {"moved": (0.1, 16.0), "plain": (0.0, 16.0), "alike": (0.1, 1e-6), "far": (0.5, 16.0)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(DRAWS):
        shots = [rng.choice(np.flatnonzero(label == c), SHOTS, False) for c in range(BASE, 10)]
        means = unit(jnp.stack([h[of].mean(0) for of in shots]))
        for name, (alpha, tau) in arms.items():
            every = jnp.concatenate([base, unit(calibrated(means, base, alpha, tau))])
            right = np.asarray((h_new @ every.T).argmax(-1)) == asked
            found[name].append((right[asked < BASE].mean(), right[asked >= BASE].mean()))
    row: dict[str, float] = {}
    for name, pairs in found.items():
        old, fresh = np.mean(pairs, 0)
        row |= {name: 2 * old * fresh / (old + fresh), f"{name} old": old, f"{name} new": fresh}
    return {name: float(value) for name, value in row.items()}


def test_a_little_calibration_helps_new_digits(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, plain = "harmonic mean of accuracies", side("nearest mean", "plain")
    record(
        claim="The harmonic mean of accuracies on base and new digits is better with means moved "
        "towards base classes than with plain means.",
        expected="undecided",
        compared=Measured(what, side("alpha 0.1", "moved"), plain),
        margin=MARGIN,
        scale=Scale(),
        premises=[Premise("accuracy on base digits", side("", "plain old").values, at_least=0.8)],
        control=Measured(what, side("alpha 0.1, all alike", "alike"), plain),
        measured=[
            Measured(what, side("alpha 0.5", "far"), plain),
            *(
                Measured(
                    f"accuracy on {name}",
                    side("alpha 0.1", f"moved {key}"),
                    side("plain", f"plain {key}"),
                )
                for name, key in (("base digits", "old"), ("new digits", "new"))
            ),
        ],
    )
