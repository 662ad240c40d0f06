"""NASNet-A (6 @ 768) on CIFAR-10.

    python train.py --config=papers/nasnet/config.py --workdir=workdirs/nasnet

Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018: 600 epochs of
batches of 32, a cosine from 0.025, cutout of 16 pixels, gradients cut to norm 5 and
ScheduledDropPath that keeps 0.6 at the end. Not here: the auxiliary head.

``small`` has cells of two steps and eight filters on the digits that ship.
The search that finds cells is ``papers.nasnet.method.search``.
"""

import vision as v
from configs.parts.small import eval_data
from vision import batch_ops, ops, spec
from vision.models.nasnet import Cell, Genotype

IMAGES, EPOCHS, BATCH = 50_000, 600, 32


def get_config() -> v.Config:
    cutout = spec(
        ops.RandomErasing, probability=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), fill="zero"
    )
    calls = IMAGES // BATCH * EPOCHS
    return experiment(
        sources=[spec(v.Tfds, name="cifar10", split=split) for split in ("train", "test")],
        batch_size=BATCH,
        cut=[cutout],
        augment=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
        model=spec(v.NasNet, drop_path=0.4, drop_path_calls=calls),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.025,
            schedule=spec(v.Cosine),
            weight_decay=5e-4,
            decay="coupled",
            clip_norm=5.0,
        ),
        total=f"{EPOCHS} epochs",
    )


def small() -> v.Config:
    return experiment(
        sources=[spec(v.Digits, split=split) for split in ("train", "test")],
        batch_size=64,
        cut=[],
        augment=[spec(batch_ops.BatchRandomCrop, padding=1, fill="edge")],
        model=spec(
            v.NasNet,
            genotype=spec(
                Genotype,
                normal=spec(Cell, steps=("sep3(0)+identity(1)", "sep3(1)+avg3(0)")),
                reduction=spec(Cell, steps=("sep3(0)+max3(1)", "avg3(0)+identity(2)")),
            ),
            depth=1,
            stages=2,
            filters=8,
            drop_path=0.1,
            drop_path_calls=200,
        ),
        optimizer=spec(
            v.Optimizer, method=spec(v.adamw), learning_rate=4e-3, schedule=spec(v.Cosine)
        ),
        total="200 steps",
    )


def experiment(*, sources, batch_size, cut, augment, model, optimizer, total):
    train, test = sources
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=train,
            batch_size=batch_size,
            ops=cut,
            batch_ops=[*augment, spec(batch_ops.BatchValueRange, low=-1, high=1)],
        ),
        model=model,
        objective=spec(v.Classify),
        optimizer=optimizer,
        total=total,
        evaluators={"test": spec(v.Classification, data=eval_data(test, 360))},
    )
