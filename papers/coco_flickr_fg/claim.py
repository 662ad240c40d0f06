"""A gallery with look-alikes, and one with as many other images.

Two towers on frozen ImageNet features learn to match emoji by two houses with their English names,
300 steps of 256 pairs. Then 200 names look for the drawings by the third house among these and 600
more, of other emoji: the ones most like the targets by the frozen features, as ``look_alikes``
picks them, or any. Look-alikes should cost more of what is found. The control are towers before
training, for which one image is as good as another.

Held, with little to spare: 27.1 % are found among look-alikes and 31.2 among as many others.
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
from papers.coco_flickr_fg.method import look_alikes
from vision.evaluators.image_text.embeddings import normalised
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
TARGETS, MORE = 200, 600


def measure_seed(seed: int) -> dict[str, float]:
    rng, every = np.random.default_rng(seed), drawings()
    data = every.take(~every.unseen & every.by("noto", "twemoji"))
    asked = np.flatnonzero(~every.unseen & every.by("fluent"))
    target = every.take(rng.choice(asked, TARGETS, replace=False))
    pool = every.take(~np.isin(every.emoji, target.emoji))
    alike = look_alikes(normalised(target.x), normalised(pool.x), MORE)
    galleries = {"near": alike, "random": rng.choice(len(pool), MORE, replace=False), "none": []}
    texts = name_ids(target.emoji)
    towers = {
        "": learned(seed, data.x, name_ids(data.emoji)),
        "untrained ": init_weights(seed, data.x.shape[1], len(vocabulary())),
    }
    row: dict[str, float] = {}
    for name, w in towers.items():
        for gallery, rows in galleries.items():
            images = np.concatenate([target.x, pool.x[np.asarray(rows, int)]])
            found = similarities(w, images, texts).T.argmax(1)
            row[name + gallery] = float(np.mean(found == np.arange(TARGETS)))
    return row


def test_look_alikes_cost_more(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = f"text to image R@1 of {TARGETS + MORE}"
    random = side("random images", "random")
    record(
        claim="Look-alikes in the gallery cost more recall than as many random images.",
        expected="held",
        compared=Measured(what, random, side("look-alikes", "near")),
        margin=MARGIN,
        scale=Scale(chance=1 / (TARGETS + MORE)),
        control=Measured(
            f"{what}, before training",
            side("random images", "untrained random"),
            side("look-alikes", "untrained near"),
        ),
        measured=[Measured("text to image R@1", side(f"of {TARGETS}", "none"), random)],
    )
