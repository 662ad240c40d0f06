"""Drawings of 24 pixels for the zoo's classifier of emoji, which learned from 48.

Its features vote by five neighbours on the subgroup, of 79: drawings by two houses, at their own 24
pixels or resized to 48, by the grid of the method. The drawings that are asked are others than
those that vote, on other grounds; every seed has its own. The control puts the 24 pixels into the
middle of 48 of one grey: the size of the input without the size of what is on it. The vote is
compared with scikit-learn's.

Standardising is beside the point here: the tower learned from pixels of -1 to 1, and gets these.

Held: 21.5 % beside 12.4, and 15.5 padded.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import sklearn
from sklearn.neighbors import KNeighborsClassifier

from configs.parts.emoji import GROUPS
from configs.parts.emoji_tower import BATCH, drawings, trained
from papers.resize_normalize_rs.encoders import PreprocessedEncoder, neighbours_top1
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Recorder, Scale, Side
from vision.train.objective import Batch, Variables

# EuroSAT, RGB, standardised, ResNet-50 of ImageNet: 82.1 % at 64 px, 91.2 at 224.
MARGIN = Margin(0.045, rule="half of the 9.1 points on EuroSAT from 64 to 224 px")
NATIVE, TRAINED, VOTING, ASKED, NEIGHBOURS, CLASSES = 24, 48, 1500, 500, 5, 79


def features(images: np.ndarray, size: int) -> np.ndarray:
    """Of images resized to ``size``, or 0 for as they are."""
    nothing: Any = {}
    tower = trained()

    def embed(_: Variables, batch: Batch) -> dict[str, jax.Array]:
        return {"embedding": tower.embedding(batch["image"])}

    same = np.zeros(1, np.float32), np.ones(1, np.float32)
    encode = jax.jit(PreprocessedEncoder(embed, size, *same))
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([np.asarray(encode(nothing, {"image": x})["embedding"]) for x in parts])


def padded(images: np.ndarray) -> np.ndarray:
    around = (TRAINED - NATIVE) // 2
    return np.pad(images, ((0, 0), (around, around), (around, around), (0, 0)))


def measure_seed(seed: int) -> dict[str, float]:
    fields: dict[str, Any] = {"groups": GROUPS, "label": "subgroup", "image_size": NATIVE}
    voting, asked = (
        drawings("train", seed, VOTING, part="seen", **fields),
        drawings("test", seed, ASKED, part="unseen", **fields),
    )
    row: dict[str, float] = {}
    for name, change, size in (
        ("native", np.asarray, 0),
        ("resized", np.asarray, TRAINED),
        ("padded", padded, 0),
    ):
        x, y = (features(change(each["image"]), size) for each in (voting, asked))
        said = neighbours_top1(x, voting["label"], y, NEIGHBOURS)
        row[name] = float(np.mean(said == asked["label"]))
        if name == "resized":
            peer = KNeighborsClassifier(NEIGHBOURS, algorithm="brute")
            expected = peer.fit(x, voting["label"]).predict(y)
            row["differ"] = float(np.mean(said != expected))
    return row


def test_drawings_of_the_training_size_have_better_neighbours(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, native = "top-1 of 79 subgroups", side("24 px", "native")
    record(
        claim="Resizing pictures to the size of its training set makes the neighbours of a frozen "
        "network's features better.",
        expected="held",
        compared=Measured(what, side("resized to 48 px", "resized"), native),
        margin=MARGIN,
        scale=Scale(chance=1 / CLASSES),
        control=Measured(what, side("padded to 48 px", "padded"), native),
        parity=Parity("scikit-learn", sklearn.__version__, max(row["differ"] for row in rows)),
    )
