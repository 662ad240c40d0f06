"""Real drawings at a few pixels, from which small towers learn in a minute.

Emoji of seven groups by three houses, on white, shrunk by whole factors of 48. Two houses and four
fifths of the emoji are learned from; what is asked about are drawings by the third house.
"""

from __future__ import annotations

import functools

import numpy as np

from configs.parts.emoji_features import THINGS, Drawn, drawings
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision.config.specs import spec
from vision.data.batch_ops import BatchRandomFlip
from vision.data.sources.arrays import Arrays
from vision.data.sources.emoji import GROUPS, HOUSES, index, pixels
from vision.evaluators.accuracy.classification import Classification
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.zoo import features

SIDE_PX, BATCH = 16, 64


@functools.cache
def thumbnails(side_px: int = SIDE_PX) -> tuple[np.ndarray, Drawn]:
    """uint8 (N, side, side, 3) of all drawings of ``drawings()``, and these, in the same order."""
    kept = {GROUPS.index(name) for name in THINGS}
    shown = [each for each in features.drawings() if index().emoji[each.emoji].group in kept]
    x = np.stack([pixels(each) for each in shown]).astype(np.float32) / 255
    white = x[..., :3] * x[..., 3:] + 1 - x[..., 3:]
    if white.shape[1] % side_px:
        raise ValueError(f"side_px={side_px} does not divide {white.shape[1]} pixels")
    factor = white.shape[1] // side_px
    mean = white.reshape(len(x), side_px, factor, side_px, factor, 3).mean((2, 4))
    return np.round(mean * 255).astype(np.uint8), drawings()


def groups_of(drawn: Drawn) -> np.ndarray:
    """Class int (N,) of drawings: number of their group in ``THINGS``."""
    return (
        np.array([GROUPS.index(name) for name in THINGS])
        .argsort()
        .argsort()[np.unique(drawn.group, return_inverse=True)[1]]
    )


def rows_of(split: str, drawn: Drawn) -> np.ndarray:
    """bool (N,): ``train`` are seen emoji by two houses, ``test`` all by the third."""
    learned, asked = HOUSES[:2], HOUSES[2:]
    return drawn.by(*learned) & ~drawn.unseen if split == "train" else drawn.by(*asked)


def source(split: str, side_px: int = SIDE_PX) -> Arrays:
    """``image`` uint8 (side, side, 3) and ``label``, the group, of the drawings of a split."""
    image, drawn = thumbnails(side_px)
    rows = rows_of(split, drawn)
    arrays = {"image": image[rows], "label": groups_of(drawn)[rows].astype(np.int32)}
    return Arrays(arrays, f"thumbnails/{split}", THINGS)


def supervised(model, learning_rate, steps, side_px=SIDE_PX, objective=None):
    """Cross-entropy on the group of a drawing, AdamW along a cosine."""
    told = spec(source, split="test", side_px=side_px)
    return spec(
        Experiment,
        data=train_data(
            spec(source, split="train", side_px=side_px), BATCH, spec(BatchRandomFlip), threads=0
        ),
        model=model,
        objective=objective or spec(Classify),
        optimizer=adamw_cosine(learning_rate),
        total=f"{steps} steps",
        evaluators={"new_house": spec(Classification, data=eval_data(told, 256))},
        log_every="50 steps",
    )
