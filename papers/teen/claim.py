"""Base subgroups of emoji and new ones with five records each, with and without calibration.

On frozen ImageNet features a network of one hidden layer with a cosine head learns 40 subgroups;
ten new subgroups have five drawings each. Base and new ones are drawn anew for each of ten seeds
from those with 24 drawings at least; drawings by two houses are learned from, and those of the
third are asked about. Numbers are means over 10 draws of the five records. New means are moved by
half, the authors' default, towards the base means that are like them, weighted by a softmax of 16
times the cosine. The control moves each by the weights of another new class, so that the base means
it is moved to are not those that it is like. That the network knows its base subgroups is the
premise.

A first control, moved as far towards all base means alike, failed on seeds 0 to 9: any move towards
the base classes gains, there 3.8 points beside 6.7. It is kept beside the claim, which was then
measured with the present control on ten new seeds.

Held: 37.8 beside 30.5 %; moved by another's weights 30.6.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, features, trained
from configs.parts.emoji_features import drawings, init_classifier
from papers.teen.method import calibrated
from vision.blocks.similarity import unit
from vision.objectives.classify import cross_entropy
from vision.papers.claims import Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="figures are unconfirmed: 2 points")
SEEDS = tuple(range(10, 20))
BASE, NEW, SHOTS, DRAWS, COSINES, LEAST = 40, 10, 5, 10, 16.0, 24
UNITS, STEPS, RATE = 128, 150, 3e-3
ALPHA, TAU = 0.5, 16.0


def loss(w: Weights, data: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
    x, targets = data
    said = COSINES * unit(features(w, x)) @ unit(w["head"]["kernel"].T).T
    return cross_entropy(said, targets, "softmax", 0.0).mean()


def measure_seed(seed: int) -> dict[str, float]:
    """Harmonic means, and accuracies on base and new subgroups, of every arm."""
    rng, every = np.random.default_rng(seed), drawings()
    names, counts = np.unique(every.subgroup, return_counts=True)
    drawn = rng.permutation(names[counts >= LEAST])[: BASE + NEW]
    label = np.argsort(drawn)[np.searchsorted(np.sort(drawn), every.subgroup) % len(drawn)]
    there = np.isin(every.subgroup, drawn)
    learn = there & every.by("noto", "twemoji")
    asked = there & every.by("fluent")
    classes = len(drawn)
    start = init_classifier(seed, classes - NEW, UNITS)
    kernel = rng.normal(0, UNITS**-0.5, (UNITS, classes - NEW)).astype(np.float32)
    start["head"]["kernel"] = jnp.asarray(kernel)
    rows = learn & (label < classes - NEW)
    # Of all seeds as many rows, so that one program does for all.
    picked = rng.choice(np.flatnonzero(rows), 1200)
    targets = jax.nn.one_hot(label[picked], classes - NEW)
    w = trained(start, loss, (jnp.asarray(every.x[picked]), targets), STEPS, RATE)
    h = np.asarray(unit(features(w, jnp.asarray(every.x))))
    h_new, truth = h[asked], label[asked]
    base = unit(jnp.stack([h[rows & (label == c)].mean(0) for c in range(classes - NEW)]))
    arms = {"moved": (ALPHA, TAU), "plain": (0.0, TAU), "alike": (ALPHA, 1e-6)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (*arms, "others")}
    for _ in range(DRAWS):
        shots = [
            rng.choice(np.flatnonzero(learn & (label == c)), SHOTS, replace=False)
            for c in range(classes - NEW, classes)
        ]
        means = unit(jnp.stack([h[of].mean(0) for of in shots]))
        moves = {name: calibrated(means, base, alpha, tau) for name, (alpha, tau) in arms.items()}
        own = (1 - ALPHA) * means  # what is added to it is another's
        moves["others"] = own + jnp.roll(moves["moved"] - own, 1, 0)
        for name, moved in moves.items():
            all_means = jnp.concatenate([base, unit(moved)])
            right = np.asarray((h_new @ all_means.T).argmax(-1)) == truth
            old = truth < classes - NEW
            found[name].append((right[old].mean(), right[~old].mean()))
    row: dict[str, float] = {"classes": classes}
    for name, pairs in found.items():
        old, fresh = np.mean(pairs, 0)
        row |= {name: 2 * old * fresh / (old + fresh), f"{name} old": old, f"{name} new": fresh}
    return {name: float(value) for name, value in row.items()}


def test_calibration_helps_new_subgroups(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, plain = "harmonic mean of accuracies", side("nearest mean", "plain")
    record(
        claim="The harmonic mean of accuracies on base and new subgroups is better with means "
        "moved towards base classes that are like them than with plain means.",
        expected="held",
        compared=Measured(what, side("moved", "moved"), plain),
        margin=MARGIN,
        scale=Scale(chance=1 / (BASE + NEW)),
        premises=[Premise("accuracy on base ones", side("", "plain old").values, at_least=0.4)],
        control=Measured(what, side("moved by another's weights", "others"), plain),
        measured=[
            Measured(what, side("moved to all alike", "alike"), plain),
            *(
                Measured(
                    f"accuracy on {name} subgroups",
                    side("moved", f"moved {key}"),
                    side("plain", f"plain {key}"),
                )
                for name, key in (("base", "old"), ("new", "new"))
            ),
        ],
        seeds=SEEDS,
    )
