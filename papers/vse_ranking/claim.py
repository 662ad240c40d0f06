"""A margin for pairs, with wrong texts or with wrong images as negatives.

Two towers on frozen ImageNet features, as the paper's on a frozen CNN, learn to match emoji by two
houses with their English names, a bag of words, 300 steps of 256 pairs, by the ranking loss. What
counts is how often the drawing of a third house finds its name among those of all thousand emoji.
The control are towers before training.

Undecided: 21.0 beside 20.3 %, better by 0.3 to 1.1 points, which is less than the margin.
"""

from __future__ import annotations

import numpy as np

from configs.parts.emoji_features import (
    drawings,
    init_weights,
    learned,
    name_ids,
    similarities,
    vocabulary,
)
from vision.blocks.contrast import Ranking
from vision.papers.claims import Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
SEEDS = tuple(range(8))


def measure_seed(seed: int) -> dict[str, float]:
    every = drawings()
    data = every.take(~every.unseen & every.by("noto", "twemoji"))
    asked = every.take(~every.unseen & every.by("fluent"))
    ids, texts = name_ids(data.emoji), name_ids(asked.emoji)
    towers = {
        name: learned(seed, data.x, ids, criterion=Ranking(negatives=name))
        for name in ("text", "image", "both")
    }
    towers["untrained"] = init_weights(seed, data.x.shape[1], len(vocabulary()))
    row: dict[str, float] = {}
    for name, w in towers.items():
        found = similarities(w, asked.x, texts)
        own = np.arange(len(found))
        row[name] = float(np.mean(found.argmax(1) == own))
        row[f"{name} back"] = float(np.mean(found.argmax(0) == own))
    row["names"] = len(texts)
    return row


def test_wrong_texts_find_texts(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    count = round(rows[0]["names"])
    what, image = f"image to text R@1 of {count}", side("wrong images", "image")
    record(
        claim="Wrong texts as negatives find more texts by images than wrong images do.",
        expected="undecided",
        compared=Measured(what, side("wrong texts", "text"), image),
        margin=MARGIN,
        scale=Scale(chance=1 / count),
        control=Measured(what, side("before training", "untrained"), image),
        measured=[
            Measured(what, side("both", "both"), side("wrong texts", "text")),
            Measured(
                f"text to image R@1 of {count}",
                side("wrong images", "image back"),
                side("wrong texts", "text back"),
            ),
        ],
        seeds=SEEDS,
    )
