"""A gallery with near-duplicates, and one with as many other images.

Small towers learn to match canvases of digits with their captions, 400 steps of 128 pairs of 800.
Then 200 captions look for their images among these and 600 more: three of each image in which one
digit is another one, or images of other captions. The near-duplicates should cost more of what is
found. The control are towers before training, for which one image is as good as another.

Undecided by a hair: 66.9 % are found among near-duplicates and 72.7 among as many others, a
difference between 1.9 and 9.7 points, where the margin is 2.
"""

from __future__ import annotations

import numpy as np

from configs.parts.canvas_pairs import Pairs, init_weights, learned, pairs, recall, similarities
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
PAIRS, TARGETS, NEAR = 800, 200, 3


def near(target: Pairs, rng: np.random.Generator) -> np.ndarray:
    """Images (N, 256) in which one cell has a digit of another class, from the other targets."""
    image = target.image.reshape(len(target), 4, 64).copy()
    for i, digits in enumerate(target.digits):
        cell = rng.choice(np.flatnonzero(digits >= 0))
        rows = np.flatnonzero(
            (target.digits[:, cell] >= 0) & (target.digits[:, cell] != digits[cell])
        )
        image[i, cell] = target.image.reshape(-1, 4, 64)[rng.choice(rows), cell]
    return image.reshape(len(target), -1)


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    data = pairs("train", PAIRS, seed)
    test = pairs("test", (1 + NEAR) * TARGETS, seed + 100)
    target, other = test.take(np.arange(TARGETS)), test.image[TARGETS:]
    alike = np.concatenate([near(target, rng) for _ in range(NEAR)])
    row: dict[str, float] = {}
    for name, w in (
        ("", learned(seed, data.image, data.words)),
        ("untrained ", init_weights(seed)),
    ):
        for gallery, more in (("near", alike), ("random", other), ("none", other[:0])):
            images = np.concatenate([target.image, more])
            row[name + gallery] = recall(similarities(w, images, target.words).T)
    return row


def test_near_duplicates_cost_more(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = f"text to image R@1 of {(1 + NEAR) * TARGETS}"
    random = side("random images", "random")
    record(
        claim="Near-duplicates in the gallery cost more recall than as many random images.",
        expected="undecided",
        compared=Measured(what, random, side("near-duplicates", "near")),
        margin=MARGIN,
        scale=Scale(chance=1 / ((1 + NEAR) * TARGETS)),
        control=Measured(
            f"{what}, before training",
            side("random images", "untrained random"),
            side("near-duplicates", "untrained near"),
        ),
        measured=[Measured("text to image R@1", side(f"of {TARGETS}", "none"), random)],
    )
