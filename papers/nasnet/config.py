"""NASNet-A (6 @ 768) on CIFAR-10.

    python train.py --config=papers/nasnet/config.py --workdir=workdirs/nasnet

Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018: 600 epochs of
batches of 32, a cosine from 0.025, cutout of 16 pixels, gradients cut to norm 5 and
ScheduledDropPath that keeps 0.6 at the end. Not here: the auxiliary head.

``small`` has cells of two steps and eight filters on the digits that ship.
How cells of a search are told apart: ``papers.functional_hash.method``.
"""

from configs.parts.small import eval_data
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import BatchRandomCrop, BatchRandomFlip, BatchValueRange
from vision.data.pipeline import TrainData
from vision.data.sources.digits import Digits
from vision.data.sources.tfds import Tfds
from vision.evaluators.accuracy.classification import Classification
from vision.models.nasnet import Cell, Genotype, NasNet
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, adamw, sgd
from vision.train.schedule import Cosine

IMAGES, EPOCHS, BATCH = 50_000, 600, 32


def get_config() -> Config:
    cutout = spec(
        ops.RandomErasing, probability=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), fill="zero"
    )
    calls = IMAGES // BATCH * EPOCHS
    return experiment(
        sources=[spec(Tfds, name="cifar10", split=split) for split in ("train", "test")],
        batch_size=BATCH,
        cut=[cutout],
        augment=[spec(BatchRandomCrop, padding=4), spec(BatchRandomFlip)],
        model=spec(NasNet, drop_path=0.4, drop_path_calls=calls),
        optimizer=spec(
            Optimizer,
            method=spec(sgd, momentum=0.9),
            learning_rate=0.025,
            schedule=spec(Cosine),
            weight_decay=5e-4,
            decay="coupled",
            clip_norm=5.0,
        ),
        total=f"{EPOCHS} epochs",
    )


def small() -> Config:
    return experiment(
        sources=[spec(Digits, split=split) for split in ("train", "test")],
        batch_size=64,
        cut=[],
        augment=[spec(BatchRandomCrop, padding=1, fill="edge")],
        model=spec(
            NasNet,
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
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=4e-3, schedule=spec(Cosine)),
        total="200 steps",
    )


def experiment(*, sources, batch_size, cut, augment, model, optimizer, total):
    train, test = sources
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=train,
            batch_size=batch_size,
            ops=cut,
            batch_ops=[*augment, spec(BatchValueRange, low=-1, high=1)],
        ),
        model=model,
        objective=spec(Classify),
        optimizer=optimizer,
        total=total,
        evaluators={"test": spec(Classification, data=eval_data(test, 360))},
    )
