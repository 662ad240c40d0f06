"""Dataset distillation: a few synthetic images per class (DataDAM).

    python train.py --config=papers/datadam/config.py --workdir=workdirs/datadam

Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, 2023: CIFAR-10, ten
images per class; ``config.objective.per_class`` and, for 100 and more, a learning rate of 10.
``small`` distils the digits that ship, one image per class, which the augmentation does not flip;
``small,attention=false`` matches mean features only.
"""

import vision as v
from configs.parts.small import eval_data, train_data
from papers.datadam.evaluator import TrainedOnSynthetic
from papers.datadam.method import DataDam
from vision import spec

UPRIGHT = ("colour", "crop", "cutout", "scale", "rotate")


def get_config() -> v.Config:
    net = {"width": 128, "depth": 3, "num_classes": 10}
    return distilled(
        train=spec(v.Tfds, name="cifar10", split="train"),
        test=spec(v.Tfds, name="cifar10", split="test"),
        net=net,
        objective=spec(DataDam, num_classes=10, per_class=10),
        learning_rate=1.0,
        total="20_000 steps",
        evaluation={"networks": 10, "steps": 1800},
    )


def small(attention: bool = True) -> v.Config:
    return distilled(
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        net={"width": 8, "depth": 2, "num_classes": 10},
        objective=spec(
            DataDam, num_classes=10, per_class=1, attention=attention, strategies=UPRIGHT
        ),
        learning_rate=0.1,
        total="120 steps",
        evaluation={"networks": 3, "steps": 300, "strategies": UPRIGHT, "learning_rate": 0.03},
    )


def distilled(*, train, test, net, objective, learning_rate, total, evaluation):
    read = eval_data(test, 360)
    return spec(
        v.Experiment,
        data=train_data(train, 640, sampler=spec(v.PxK, classes=10, instances=64)),
        model=spec(v.PlainConv, **net),
        objective=objective,
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.5),
            learning_rate=learning_rate,
            rules=[spec(v.ParameterRule, pattern="images/pixels")],
        ),
        total=total,
        evaluators={
            "test": spec(
                TrainedOnSynthetic, data=read, model=spec(v.PlainConv, **net), **evaluation
            )
        },
        log_every="20 steps",
    )
