"""SimpleNet of 5.48 million parameters on CIFAR-10, by the authors' recipe.

    python train.py --config=simplenet --workdir=workdirs/simplenet
    python train.py --config=simplenet:small --workdir=workdirs/simplenet_small

Adadelta at 0.1 with decay 0.005 for 400,000 steps of 100 images; the rate falls to a tenth at
each of six milestones. Images are padded by 4, cropped and mirrored.

``small`` is the network of 310 thousand parameters on the digits that ship, with two poolings,
since they have 8 px; ``small,rival=early`` as many parameters in two layers that pool at once.
"""

from typing import Literal

import optax

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.simplenet.method import SimpleNet, early_pooling
from vision import batch_ops, ops, spec

MILESTONES = (50_000, 95_000, 253_000, 295_000, 320_000, 370_000)
SLIM = 314_000


def get_config() -> v.Config:
    train, test = (spec(v.Tfds, name="cifar10", split=split) for split in ("train", "test"))
    values = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=train,
            batch_size=100,
            ops=[spec(ops.ToRgb), *values],
            batch_ops=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
        ),
        model=spec(SimpleNet, variant="5m"),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(optax.scale_by_adadelta, eps=1e-3),
            learning_rate=0.1,
            schedule=spec(v.Milestones, milestones=[f"{step} steps" for step in MILESTONES]),
            weight_decay=0.005,
            decay="coupled",
        ),
        total="400000 steps",
        evaluators={
            "test": spec(
                v.Classification,
                data=spec(v.EvalData, source=test, batch_size=500, ops=[spec(ops.ToRgb), *values]),
            )
        },
        evaluate_every="5000 steps",
    )


def small(rival: Literal["", "early"] = "") -> v.Config:
    model = spec(SimpleNet, variant="310k", pools=(4, 9))
    if rival == "early":
        layers = early_pooling(parameters=SLIM, num_classes=10)
        model = spec(SimpleNet, layers=layers, pools=(1, 2))
    return spec(
        v.Experiment,
        data=train_data(spec(v.Digits, split="train"), 64),
        model=model,
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="12 epochs",
        evaluators={
            "test": spec(v.Classification, data=eval_data(spec(v.Digits, split="test"), 360))
        },
    )
