"""A margin for pairs, with wrong texts or with wrong images as negatives.

Small towers learn to match canvases of digits with their captions, 400 steps of 128 pairs of 800,
by the ranking loss. What counts is how often a new image finds its caption among 300. The control
are towers before training.

Undecided: 76.4 beside 76.0 %, by as much as seeds scatter.
"""

from __future__ import annotations

from configs.parts.canvas_pairs import init_weights, learned, pairs, recall, similarities
from vision.blocks.contrast import Ranking
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
PAIRS, TESTS = 800, 300


def measure_seed(seed: int) -> dict[str, float]:
    data, test = pairs("train", PAIRS, seed), pairs("test", TESTS, seed + 100)
    towers = {
        name: learned(seed, data.image, data.words, criterion=Ranking(negatives=name))
        for name in ("text", "image", "both")
    }
    towers["untrained"] = init_weights(seed)
    row: dict[str, float] = {}
    for name, w in towers.items():
        found = similarities(w, test.image, test.words)
        row |= {name: recall(found), f"{name} back": recall(found.T)}
    return row


def test_wrong_texts_find_texts(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, image = f"image to text R@1 of {TESTS}", side("wrong images", "image")
    record(
        claim="Wrong texts as negatives find more texts by images than wrong images do.",
        expected="undecided",
        compared=Measured(what, side("wrong texts", "text"), image),
        margin=MARGIN,
        scale=Scale(chance=1 / TESTS),
        control=Measured(what, side("before training", "untrained"), image),
        measured=[
            Measured(what, side("both", "both"), side("wrong texts", "text")),
            Measured(
                f"text to image R@1 of {TESTS}",
                side("wrong images", "image back"),
                side("wrong texts", "text back"),
            ),
        ],
    )
