"""Clean pairs, and twice as many of which 30 % are wrong.

Small towers learn to match canvases of digits with their captions, 400 steps of 128 pairs: from 400
clean pairs, or from 800 of which 240 have the captions of each other. What counts is how often a
new image finds its caption among 300. The control has 800 pairs too, the 400 clean ones and 400
whose captions are all wrong: more pairs, and nothing more said.

Refuted: 43 beside 70 %. Towers this small take wrong captions for true ones; what noise costs falls
with the number of pairs, of which the authors have 1.8 billion.
"""

from __future__ import annotations

import numpy as np

from configs.parts.canvas_pairs import learned, pairs, recall, similarities
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
PAIRS, WRONG, TESTS = 400, 0.3, 300


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    data, test = pairs("train", 2 * PAIRS, seed), pairs("test", TESTS, seed + 100)

    def found(rows: int, wrong: np.ndarray) -> float:
        words = data.words.copy()
        words[wrong] = words[np.roll(wrong, 1)]
        w = learned(seed, data.image[:rows], words[:rows])
        return recall(similarities(w, test.image, test.words))

    wrong = rng.permutation(2 * PAIRS)[: int(WRONG * 2 * PAIRS)]
    return {
        "clean": found(PAIRS, wrong[:0]),
        "noisy": found(2 * PAIRS, wrong),
        "useless": found(2 * PAIRS, PAIRS + rng.permutation(PAIRS)),
    }


def test_more_pairs_are_worth_some_noise(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, clean = f"image to text R@1 of {TESTS}", side("400 pairs", "clean")
    record(
        claim="Twice as many pairs, 30 % of them wrong, teach more than half as many clean ones.",
        expected="refuted",
        compared=Measured(what, side("800 pairs, 30 % wrong", "noisy"), clean),
        margin=MARGIN,
        scale=Scale(chance=1 / TESTS),
        control=Measured(what, side("400 more pairs, all of them wrong", "useless"), clean),
    )
