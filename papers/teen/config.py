"""Few-shot sessions of new classes whose prototypes lean on those of the base classes (TEEN).

    python train.py --config=papers/teen/config.py --workdir=workdirs/teen

Wang et al., Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration, 2023:
CIFAR-100, 60 base classes and eight sessions of five classes with five records each; an 18-layer
ResNet for small images stands for the paper's 20-layer one. ``small`` has six base digits and two
sessions of two.
"""

from configs.parts.small import adamw_cosine
from papers.teen.cosine_head import CosineHead
from papers.teen.method import FewShotSessions
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import BatchRandomCrop, BatchRandomFlip, BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.digits import Digits
from vision.data.sources.splits import OfClasses
from vision.data.sources.tfds import Tfds
from vision.models.plain_conv import PlainConv
from vision.models.resnet import ResNet
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Cosine


def get_config() -> Config:
    return sessions(
        train=spec(Tfds, name="cifar100", split="train"),
        test=spec(Tfds, name="cifar100", split="test"),
        base=tuple(range(60)),
        new=[tuple(range(i, i + 5)) for i in range(60, 100, 5)],
        draws=1,
        batch_size=256,
        batch_ops=[spec(BatchRandomCrop, padding=4), spec(BatchRandomFlip)],
        tower=spec(ResNet, depth=18, stem="cifar", num_classes=0),
        optimizer=spec(
            Optimizer,
            method=spec(sgd, momentum=0.9),
            learning_rate=0.1,
            schedule=spec(Cosine),
            weight_decay=5e-4,
        ),
        total="600 epochs",
    )


def small() -> Config:
    return sessions(
        train=spec(Digits, split="train"),
        test=spec(Digits, split="test"),
        base=(0, 1, 2, 3, 4, 5),
        new=[(6, 7), (8, 9)],
        draws=30,
        batch_size=64,
        batch_ops=[spec(BatchRandomCrop, padding=1, fill="edge")],
        tower=spec(PlainConv, width=24, depth=2),
        optimizer=adamw_cosine(3e-3, "10 steps", clip_norm=None),
        total="200 steps",
    )


def sessions(*, train, test, base, new, draws, batch_size, batch_ops, tower, optimizer, total):
    values = {"low": 0, "high": 1}

    def read(source):
        return spec(EvalData, source=source, batch_size=500, ops=[spec(ops.ValueRange, **values)])

    few = {"train": read(train), "test": read(test), "base": base, "sessions": new}
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(OfClasses, source=train, classes=base),
            batch_size=batch_size,
            batch_ops=[spec(BatchValueRange, **values), *batch_ops],
        ),
        model=spec(CosineHead, tower=tower, num_classes=len(base), scale=16.0),
        objective=spec(Classify),
        optimizer=optimizer,
        total=total,
        evaluators={
            "teen": spec(FewShotSessions, alpha=0.1, draws=draws, **few),
            "means": spec(FewShotSessions, alpha=0.0, draws=draws, **few),
        },
    )
