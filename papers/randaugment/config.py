"""ResNet-50 on ImageNet-1k with RandAugment: two operations of 14 at one magnitude, 9.

    python train.py --config=papers/randaugment/config.py --workdir=workdirs/randaugment

Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2020:
180 epochs of batches of 4,096. The op is ``vision.data.ops.RandAugment``, in the paper's form; its
Solarize grows stronger with the magnitude, where the released code's grows weaker. The shape of
the learning rate is ours.

``small`` is a small CNN on the digits that ship; ``small,magnitude=M`` has the magnitude
M = 0..10, and ``magnitude=none`` no augmentation.
"""

import vision as v
from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision import ops, spec
from vision.data.ops.auto import RAND_AUGMENT_PAPER_OPS

SIDE = 12


def paper(num_ops: int, magnitude: int, **more):
    plain = {"magnitude_std": 0, "probability": 1, "ops": RAND_AUGMENT_PAPER_OPS}
    return spec(ops.RandAugment, num_ops=num_ops, magnitude=magnitude, **plain, **more)


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=4096, augment=[paper(2, 9), *normalise]),
        model=spec(v.ResNet, depth=50, precision=spec(v.Precision, compute="bfloat16")),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=imagenet.nesterov(1.6),
        total="180 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(magnitude: int | None = 4) -> v.Config:
    augment = [] if magnitude is None else [paper(2, magnitude, fill=(0, 0, 0))]
    frame = spec(ops.CenterPad, size=(SIDE, SIDE), fill=(0,))
    test = eval_data(spec(v.Digits, split="test"), 360, frame, threads=0)
    return spec(
        v.Experiment,
        data=train_data(spec(v.Digits, split="train"), 64, ops=[frame, *augment]),
        model=spec(v.PlainConv, width=16, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(1e-2, clip_norm=None),
        total="400 steps",
        evaluators={"test": spec(v.Classification, data=test)},
        log_every="50 steps",
    )
