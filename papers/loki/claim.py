"""Digits without training records, predicted by their position between the observed ones.

A small ViT learns six of the ten digits, or four. Its probabilities become answers over all ten by
the argmax and by Loki: with six, distances are those of the digits' mean features (of training
records of all ten, which is what Loki is told of the others); with four, the difference of the
digits themselves, a metric that has nothing to do with how they look.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from papers.loki.config import line, small
from vision.config.specs import build
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(
    0.03, rule="half of the 10.5 % that the authors gain on CLIP, of an accuracy of 0.6"
)


def test_answers_come_nearer_and_unseen_digits_are_named(record: Recorder):
    results: dict[str, list[dict[str, float]]] = {"small": [], "line": []}
    for mode, rows in results.items():
        config: Any = small() if mode == "small" else line()
        evaluator = build(config.evaluators)["all"]
        rows += [measure(train(config, seed), evaluator) for seed in SEEDS]

    def both(name: str, mode: str, metric: str) -> Measured:
        loki, argmax = (
            Side(title, tuple(row[f"{rule}_{metric}"] for row in results[mode]))
            for title, rule in (("Loki", "loki"), ("argmax", "argmax"))
        )
        return Measured(name, loki, argmax)

    def gain(of: Measured) -> float:
        assert of.baseline is not None
        return float(np.mean(of.method.values) - np.mean(of.baseline.values))

    near = both("mean squared distance, six digits known", "small", "squared")
    top1 = both("top-1 of ten, six digits known", "small", "top1")
    straight = both("mean squared distance on the line, four known", "line", "squared")
    record(
        claim="With six of ten digits known Loki names more digits right than the argmax.",
        expected="undecided",
        compared=top1,
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=None,
        measured=[
            near,
            both("top-1 of the unseen, six known", "small", "unseen_top1"),
            straight,
            both("top-1 of ten, four known", "line", "top1"),
        ],
    )
