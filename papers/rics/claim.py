"""RICS: 359 digits in noise, crops of 16 of 26 pixels, shifted by one pixel.

A narrow ResNet is trained on random crops and then asked twice: about the crop in the middle, and
about the one that the picture's content chooses. The classifier is the same, and so are the
pictures, and nothing of RICS is trained.

That cyclic moves change no answer is exact, whatever the classifier. How many crops stay the same
is measured beside the formula, for the score that it is exact for: 10/12 of pixels along an axis,
100/142 along a diagonal. The filter likes the edges of digits, which are in the middle of the
picture, so its winners leave it less often than the formula says.

It did not hold, for accuracy alone: behind the filter 42.0 % are right where the middle has 45.9 %,
by seeds that differ by more than that. The classifier is weak, trained for 15 epochs with the stem
of large pictures to be done in seconds. Of its answers 41.4 % change under a pixel, 12.3 % behind
the hash and 0.2 % behind the filter; 83.7 % and 70.8 % of crops stay the same where the formula
says 83.3 % and 70.4 %; cyclic moves change none.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from papers.rics.config import small
from papers.rics.method import Rics, share_of_same_crops
from vision.config.specs import build
from vision.data.ops.shift import Shift
from vision.data.pipeline import EvalData
from vision.evaluators.robustness.perturbed import with_op
from vision.evaluators.robustness.translation import neighbours
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(0.02, rule="under 5 % against a baseline that is not in the headline: 2 points")

PICTURE, WINDOW = 26, 16
PLACES = PICTURE - WINDOW + 1


def read(data: EvalData) -> np.ndarray:
    """The pictures that the evaluators see."""
    return np.concatenate([batch["image"][batch["_mask"]] for batch in data.loader()])


def same_crops(rics: Any, moves: list[tuple[int, int]]) -> float:
    """The share of pictures whose crop has the same pixels after a move, mean over moves."""
    data = rics.evaluator.data
    [at] = [place for place, op in enumerate(data.ops) if type(op).__name__ == "CenterCrop"]
    larger = dataclasses.replace(data, ops=data.ops[:at] + data.ops[at + 1 :])
    choose = jax.jit(rics.crops)
    still = np.asarray(choose(read(data))[0])
    shares = []
    for move in moves:
        moved = with_op(larger, Shift(*move, (PICTURE, PICTURE)), at)
        crops = np.asarray(choose(read(moved))[0])
        shares.append((crops == still).all((1, 2, 3)).mean())
    return float(np.mean(shares))


def test_the_chosen_crop_changes_fewer_answers(record: Recorder):
    rows = []
    moves = neighbours(1)
    axes = [move for move in moves if 0 in move]
    diagonals = [move for move in moves if 0 not in move]
    for seed in SEEDS:
        config: Any = small()
        run = train(config, seed)
        row: dict[str, float] = {}
        for name in ("centre", "rics", "rics_hash", "cyclic"):
            evaluator: Any = build(config.evaluators[name])
            if isinstance(evaluator, Rics):
                evaluator = dataclasses.replace(evaluator, seed=seed)
            metrics = measure(run, evaluator)
            row |= {f"{name} flips": 1 - metrics["consistency"], f"{name} top1": metrics["top1"]}
            row[f"{name} any"] = 1 - metrics["steady"]
            if name.startswith("rics"):
                row[f"{name} axis"] = same_crops(evaluator, axes)
                row[f"{name} diagonal"] = same_crops(evaluator, diagonals)
        rows.append(row)

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    axis, diagonal = (share_of_same_crops(PLACES, 1, right) for right in (0, 1))
    record(
        claim="The crop that the content chooses by its hash changes fewer answers under a pixel "
        "than the one in the middle.",
        expected="undecided",
        compared=Measured(
            "answers that change, mean of 8 moves",
            side("RICS, hash", "rics_hash flips"),
            side("middle", "centre flips"),
        ),
        margin=MARGIN,
        scale=Scale(worst=1.0, best=0.0),
        control=None,
        measured=[
            Measured(
                "answers that change, mean of 8 moves",
                side("RICS, filter", "rics flips"),
                side("middle", "centre flips"),
            ),
            Measured(
                "pictures with any change",
                side("RICS, filter", "rics any"),
                side("middle", "centre any"),
            ),
            Measured("top-1", side("RICS, filter", "rics top1"), side("middle", "centre top1")),
            Measured("top-1", side("RICS, hash", "rics_hash top1"), side("middle", "centre top1")),
            Measured("cyclic moves: answers that change", side("RICS", "cyclic flips")),
            Measured(
                "same crop after a pixel along an axis",
                side("RICS, hash", "rics_hash axis"),
                Side("formula", (axis,)),
            ),
            Measured(
                "same crop after a pixel along a diagonal",
                side("RICS, hash", "rics_hash diagonal"),
                Side("formula", (diagonal,)),
            ),
            Measured(
                "same crop after a pixel along an axis",
                side("RICS, filter", "rics axis"),
                Side("formula", (axis,)),
            ),
        ],
    )
