"""ResNet-50 on ImageNet-1k with RandAugment: two operations of 14 at one magnitude, 9.

    python train.py --config=papers/randaugment/config.py --workdir=workdirs/randaugment

Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2020:
180 epochs of batches of 4,096. The op is ``vision.data.ops.RandAugment``, in the paper's form; its
Solarize grows stronger with the magnitude, where the released code's grows weaker. The shape of
the learning rate is ours.

``small`` is a small CNN on the digits that ship; ``small,magnitude=M`` has the magnitude
M = 0..10, and ``magnitude=none`` no augmentation.
"""

from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.ops.auto import RAND_AUGMENT_PAPER_OPS
from vision.data.sources.digits import Digits
from vision.evaluators.accuracy.classification import Classification
from vision.models.plain_conv import PlainConv
from vision.models.resnet import ResNet
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, sgd
from vision.train.precision import Precision
from vision.train.schedule import Cosine

SIDE = 12


def paper(num_ops: int, magnitude: int, **more):
    plain = {"magnitude_std": 0, "probability": 1, "ops": RAND_AUGMENT_PAPER_OPS}
    return spec(ops.RandAugment, num_ops=num_ops, magnitude=magnitude, **plain, **more)


def get_config() -> Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        Experiment,
        data=imagenet.train(batch_size=4096, augment=[paper(2, 9), *normalise]),
        model=spec(ResNet, depth=50, precision=spec(Precision, compute="bfloat16")),
        objective=spec(Classify, label_smoothing=0.1),
        optimizer=spec(
            Optimizer,
            method=spec(sgd, momentum=0.9, nesterov=True),
            learning_rate=1.6,
            schedule=spec(Cosine, warmup="5 epochs"),
            weight_decay=1e-4,
            decay="coupled",
        ),
        total="180 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(magnitude: int | None = 4) -> Config:
    augment = [] if magnitude is None else [paper(2, magnitude, fill=(0, 0, 0))]
    frame = spec(ops.CenterPad, size=(SIDE, SIDE), fill=(0,))
    test = eval_data(spec(Digits, split="test"), 360, frame, threads=0)
    return spec(
        Experiment,
        data=train_data(spec(Digits, split="train"), 64, ops=[frame, *augment]),
        model=spec(PlainConv, width=16, depth=2),
        objective=spec(Classify),
        optimizer=adamw_cosine(1e-2, clip_norm=None),
        total="400 steps",
        evaluators={"test": spec(Classification, data=test)},
        log_every="50 steps",
    )
