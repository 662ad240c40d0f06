"""Few-shot class-incremental sessions with calibrated prototypes (TEEN).

    python train.py --config=papers/teen/config.py --workdir=workdirs/teen

Wang et al., Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration, 2023:
CIFAR-100, 60 base classes and eight sessions of five classes with five records each; an 18-layer
ResNet for small images stands for the paper's 20-layer one. ``small`` has six base digits and two
sessions of two.
"""

import vision as v
from configs.parts.small import adamw_cosine
from papers.teen.cosine_head import CosineHead
from papers.teen.evaluator import FewShotSessions
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    return sessions(
        train=spec(v.Tfds, name="cifar100", split="train"),
        test=spec(v.Tfds, name="cifar100", split="test"),
        base=tuple(range(60)),
        new=[tuple(range(i, i + 5)) for i in range(60, 100, 5)],
        draws=1,
        batch_size=256,
        augment=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
        tower=spec(v.ResNet, depth=18, stem="cifar", num_classes=0),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.1,
            schedule=spec(v.Cosine),
            weight_decay=5e-4,
        ),
        total="600 epochs",
    )


def small() -> v.Config:
    return sessions(
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        base=(0, 1, 2, 3, 4, 5),
        new=[(6, 7), (8, 9)],
        draws=30,
        batch_size=64,
        augment=[spec(batch_ops.BatchRandomCrop, padding=1, fill="edge")],
        tower=spec(v.PlainConv, width=24, depth=2),
        optimizer=adamw_cosine(3e-3, "10 steps", clip_norm=None),
        total="200 steps",
    )


def sessions(*, train, test, base, new, draws, batch_size, augment, tower, optimizer, total):
    values = {"low": 0, "high": 1}

    def read(source):
        return spec(v.EvalData, source=source, batch_size=500, ops=[spec(ops.ValueRange, **values)])

    few = {"train": read(train), "test": read(test), "base": base, "sessions": new}
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.OfClasses, source=train, classes=base),
            batch_size=batch_size,
            batch_ops=[spec(batch_ops.BatchValueRange, **values), *augment],
        ),
        model=spec(CosineHead, tower=tower, num_classes=len(base), scale=16.0),
        objective=spec(v.Classify),
        optimizer=optimizer,
        total=total,
        evaluators={
            "teen": spec(FewShotSessions, alpha=0.1, draws=draws, **few),
            "means": spec(FewShotSessions, alpha=0.0, draws=draws, **few),
        },
    )
