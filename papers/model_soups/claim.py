"""Soups of eight fine-tunes, against the best of them.

A network of one hidden layer of 128 units learns clean digits. Eight fine-tunes on 300 digits under
noise, each with its own rate, label smoothing, noise and order of rows, start from it; another 300
choose the best run and the greedy soup, and the noisy test digits are asked. The control mixes runs
that start from eight networks of their own, which have no basin in common: its greedy soup against
its best run.

Undecided: 84.5 beside 84.8 %, and in some seeds the greedy soup is a single run. The uniform soup
is worse than the best run by 1.5 points, and by 22 where starts are apart.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, digits, init_weights, logits, nll, right, trained
from papers.model_soups.method import ensemble, greedy, uniform
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side
from vision.train.objective import Variables

MARGIN = Margin(0.0033, rule="half of the 0.65 points that the authors gain on ImageNet")
UNITS, RUNS, NOISE, LEARNED = 128, 8, 0.35, 300


def smoothed(w: Weights, data: tuple[jax.Array, ...], key: jax.Array) -> jax.Array:
    """Cross-entropy with label smoothing, under fresh noise on a random half of the rows."""
    x, targets, smoothing, noise = data
    k_rows, k_noise = jax.random.split(jax.random.fold_in(key, jnp.int32(1e6 * noise)))
    rows = jax.random.permutation(k_rows, len(x))[: len(x) // 2]
    noisy = x[rows] + noise * jax.random.normal(k_noise, (len(rows), x.shape[1]))
    return nll(w, noisy, targets[rows] * (1 - smoothing) + smoothing / 10)


def tuned(start: Weights, x: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Weights:
    rate = float(10 ** rng.uniform(-3.3, -2))
    smoothing, noise = float(rng.uniform(0, 0.2)), float(rng.uniform(0.1, 0.5))
    data = (jnp.asarray(x), jax.nn.one_hot(label, 10), jnp.float32(smoothing), jnp.float32(noise))
    return trained(start, smoothed, data, 150, jnp.float32(rate))


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    (x, label), (new, asked) = digits("train"), digits("test")
    order = rng.permutation(len(x))
    known, learn, held = np.split(
        order[: len(order)], [len(order) - 2 * LEARNED, len(order) - LEARNED]
    )

    def noisy(x: np.ndarray) -> np.ndarray:
        return x + rng.normal(0, NOISE, x.shape).astype(np.float32)

    held_x, new = noisy(x[held]), noisy(new)

    def begun_at(number: int) -> Weights:
        data = (jnp.asarray(x[known]), jax.nn.one_hot(label[known], 10), 0.0, 0.0)
        floats = tuple(jnp.asarray(each, jnp.float32) for each in data)
        return trained(
            init_weights(100 * seed + number, UNITS), smoothed, floats, 200, jnp.float32(3e-3)
        )

    def accuracy(variables: Variables, x: np.ndarray, label: np.ndarray) -> float:
        return float(np.mean(right(variables.params["model"], x, label)))

    row: dict[str, float] = {}
    for name, starts in (("", [begun_at(0)] * RUNS), ("apart ", map(begun_at, range(RUNS)))):
        runs = [tuned(start, x[learn], label[learn], rng) for start in starts]
        members = [Variables({"model": w}, {}, {}) for w in runs]
        soup = greedy(members, lambda each: accuracy(each, held_x, label[held]))
        best = members[int(np.argmax(soup.scores))]
        row[f"{name}soup"] = accuracy(soup.variables, new, asked)
        row[f"{name}best"] = accuracy(best, new, asked)
        row[f"{name}taken"] = float(len(soup.taken))
        row[f"{name}uniform"] = accuracy(uniform(members), new, asked)
        mixed = ensemble([np.asarray(logits(w, jnp.asarray(new))) for w in runs])
        row[f"{name}ensemble"] = float(np.mean(mixed.argmax(-1) == asked))
    return row


def test_a_greedy_soup_beats_the_best_of_its_runs(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, best = "top-1 of noisy digits", side("best run", "best")
    record(
        claim="A greedy soup of eight fine-tunes names more of new pictures than the run that is "
        "best on held-out ones.",
        expected="undecided",
        compared=Measured(what, side("greedy soup", "soup"), best),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        premises=[Premise("runs in the soup", side("", "taken").values, at_least=2)],
        control=Measured(
            f"{what}, starts apart",
            side("greedy soup", "apart soup"),
            side("best run", "apart best"),
        ),
        measured=[
            Measured(what, side("uniform soup", "uniform"), best),
            Measured(f"{what}, starts apart", side("uniform soup", "apart uniform"), best),
            Measured(what, side("greedy soup", "soup"), side("ensemble of all", "ensemble")),
        ],
    )
