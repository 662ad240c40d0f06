"""Vote counts of volunteers predicted by an EfficientNet-B0 on Galaxy Zoo DECaLS.

    python train.py --config=papers/zoobot/config.py:decals --workdir=workdirs/zoobot

Walmsley et al., Zoobot, 2022. The tables, decals-train.parquet and decals-test.parquet, have a
picture of 300 px in every row, its path or its bytes, and a column of counts for each of the 34
answers, named as in the catalogue, ``smooth-or-featured_smooth_count``; ``ANSWERS`` lists them.
Grey, a crop of 70 to 80 % of the area, mirrored. Images are not turned, and training stops after a
fixed number of epochs, not by patience.

``small`` asks 5 to 40 imperfect raters for the shape of things in scenes of 24 pixels;
``small,likelihood=multinomial`` is the baseline of the paper's.
"""

from typing import Literal

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.zoobot.method import Votes
from papers.zoobot.votes import Tally, VoteLikelihood
from vision import ops, spec

ANSWERS = {
    "smooth-or-featured": ("smooth", "featured-or-disk", "artifact"),
    "disk-edge-on": ("yes", "no"),
    "has-spiral-arms": ("yes", "no"),
    "bar": ("strong", "weak", "no"),
    "bulge-size": ("dominant", "large", "moderate", "small", "none"),
    "how-rounded": ("round", "in-between", "cigar-shaped"),
    "edge-on-bulge": ("boxy", "none", "rounded"),
    "spiral-winding": ("tight", "medium", "loose"),
    "spiral-arm-count": ("1", "2", "3", "4", "more-than-4", "cant-tell"),
    "merging": ("none", "minor-disturbance", "major-disturbance", "merger"),
}
SHAPES = ("circle", "square", "hexagon", "star", "spark", "flower")


def get_config(path: str = "decals") -> v.Config:
    counts = tuple(f"{name}_{each}_count" for name, answers in ANSWERS.items() for each in answers)
    questions = tuple(len(answers) for answers in ANSWERS.values())
    columns = {name: spec(v.Number, column=name, low=0) for name in counts}
    tally = spec(Tally, columns=counts)
    read, grey = spec(ops.Decode), spec(ops.RandomGrayscale, probability=1.0)

    def table(part):
        return spec(v.Parquet, path=f"{path}-{part}.parquet", columns=columns)

    def prepared(*cut):
        return [read, *cut, grey, spec(ops.ValueRange), tally]

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=table("train"),
            batch_size=128,
            ops=prepared(
                spec(ops.RandomResizedCrop, size=224, scale=(0.7, 0.8), ratio=(1.0, 1.0)),
                spec(ops.RandomFlip),
            ),
        ),
        model=spec(v.EfficientNet, variant="B0", num_classes=sum(questions)),
        objective=spec(Votes, questions=questions),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=1e-3,
            weight_decay=0.01,
        ),
        total="30 epochs",
        evaluators={
            "votes": spec(
                VoteLikelihood,
                data=spec(
                    v.EvalData,
                    source=table("test"),
                    batch_size=128,
                    ops=prepared(spec(ops.CenterCrop, size=224)),
                ),
                questions=questions,
            ),
        },
    )


def scenes(split, examples):
    return spec(
        v.Scenes,
        split=split,
        num_examples=examples,
        features=("image", "votes"),
        label="shape",
        shapes=SHAPES,
        image_size=24,
        num_objects=(1, 1),
        variants=("solid",),
        num_raters=40,
        rater_accuracy=0.75,
        rater_spread=0.2,
    )


def small(likelihood: Literal["dirichlet", "multinomial"] = "dirichlet") -> v.Config:
    tally = spec(Tally, answers=len(SHAPES))
    return spec(
        v.Experiment,
        data=train_data(scenes("train", 4000), 64, ops=[tally]),
        model=spec(
            v.ViT, width=48, depth=2, heads=4, patch=6, pool="mean", num_classes=len(SHAPES)
        ),
        objective=spec(Votes, questions=(len(SHAPES),), likelihood=likelihood),
        optimizer=adamw_cosine(3e-3),
        total="400 steps",
        evaluators={
            "votes": spec(
                VoteLikelihood,
                data=eval_data(scenes("test", 1000), 250, tally),
                questions=(len(SHAPES),),
            ),
        },
        log_every="50 steps",
    )
