"""ResNet-50 on ImageNet-1k with a box of another image pasted in (CutMix).

    python train.py --config=papers/cutmix/config.py --workdir=workdirs/cutmix

Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features,
2019: every batch is cut, alpha 1, 300 epochs of batches of 256. The op is
``vision.data.batch_ops.CutMix``; the steps of the learning rate are as in the card.

``small`` is a small CNN on 500 of the digits that ship; ``small,rival=cutout`` erases a box and
keeps the label; ``rival=plain`` does neither.
"""

from typing import Literal

import vision as v
from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision import batch_ops, ops, spec

FEW = {"test_fraction": 0.72}  # leaves 503 of 1,797


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    jitter = spec(ops.ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4)
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=256,
            augment=[jitter, *normalise],
            batch_ops=[spec(batch_ops.CutMix, num_classes=imagenet.NUM_CLASSES)],
        ),
        model=spec(v.ResNet, depth=50, precision=spec(v.Precision, compute="bfloat16")),
        objective=spec(v.Classify),
        optimizer=imagenet.nesterov(0.1, spec(v.Staircase, every="75 epochs")),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=256, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(rival: Literal["", "cutout", "plain"] = "") -> v.Config:
    erase = spec(
        ops.RandomErasing, probability=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), fill="zero"
    )
    test = eval_data(spec(v.Digits, split="test", **FEW), 360, threads=0)
    return spec(
        v.Experiment,
        data=train_data(
            spec(v.Digits, split="train", **FEW),
            64,
            *([spec(batch_ops.CutMix, num_classes=10)] if not rival else ()),
            ops=[erase] if rival == "cutout" else (),
            threads=0,
        ),
        model=spec(v.PlainConv, width=16, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(1e-2, clip_norm=None),
        total="500 steps",
        evaluators={"test": spec(v.Classification, data=test)},
        log_every="50 steps",
    )
