"""Answers that one label calls wrong and the set of labels calls right.

Canvases of four cells show one to three digits, half of them several, and are given the label of
one, by chance. A linear classifier of cells has learned from canvases with one digit. Of the
answers that differ from the label, a share names another digit that is there. How many would by
chance is told by the same answers beside the label sets of other canvases, drawn among those with
the same number of digits and without the label.

The control is a classifier with random weights: what it says wrongly should be there no more often
than by chance.

Held: 89 % of the wrong answers name a digit that is there, 18 % would by chance; with random
weights it is 10 and 8 %.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from configs.parts.canvases import Canvases, canvases, classifier, scores
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.22, rule="half of the 44 % of 676 mistakes that the review calls right")

SEVERAL, COUNT = 0.5, 2000


def excused(said: np.ndarray, data: Canvases, rng: np.random.Generator) -> tuple[float, float]:
    """Of wrong answers the share in the label set, and in the set of another canvas."""
    wrong = said != data.label
    own = data.labels[np.arange(len(said)), said]
    sizes = data.labels.sum(1)
    other = np.zeros(len(said), bool)
    for i in np.flatnonzero(wrong):
        # As many digits, the same label among them: what else is there was drawn independently.
        alike = np.flatnonzero((sizes == sizes[i]) & data.labels[:, data.label[i]])
        other[i] = data.labels[rng.choice(alike), said[i]]
    return float(own[wrong].mean()), float(other[wrong].mean())


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    model = classifier(canvases("train", 0.0, 1500, seed))
    random = dataclasses.replace(model, weight=rng.normal(size=model.weight.shape))
    data = canvases("test", SEVERAL, COUNT, seed + 100)
    said, guessed = (scores(each, data).argmax(1) for each in (model, random))
    own, other = excused(said, data, rng)
    own_random, other_random = excused(guessed, data, rng)
    return {
        "own": own,
        "other": other,
        "own random": own_random,
        "other random": other_random,
        "top1": float(np.mean(said == data.label)),
        "mistakes": float((said != data.label).sum()),
        "any": float(data.labels[np.arange(len(said)), said].mean()),
    }


def test_many_mistakes_name_another_thing_that_is_there(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = "share of wrong answers that name a digit of the canvas"
    record(
        claim="Answers that the one label calls wrong name another thing in the picture more "
        "often than by chance.",
        expected="held",
        compared=Measured(what, side("its own set", "own"), side("another's set", "other")),
        margin=MARGIN,
        scale=Scale(),
        premises=[
            Premise("top-1 by the one label", side("", "top1").values, at_least=0.5),
            Premise("wrong answers", side("", "mistakes").values, at_least=100),
        ],
        control=Measured(
            f"{what}, random weights",
            side("its own set", "own random"),
            side("another's set", "other random"),
        ),
        measured=[Measured("accuracy", side("any label", "any"), side("the one label", "top1"))],
    )
