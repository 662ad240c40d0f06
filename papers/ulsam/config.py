"""MobileNet-V2 on ImageNet-1k with subspace attention in the place of two of its layers (ULSAM).

    python train.py --config=papers/ulsam/config.py --workdir=workdirs/ulsam
    python train.py --config=ulsam:v1 --workdir=workdirs/ulsam_v1
    python train.py --config=ulsam:small --workdir=workdirs/ulsam_small

Saini et al., ULSAM: Ultra-Lightweight Subspace Attention Module for Compact Convolutional Neural
Networks, 2020: four groups, in the place of one repeated layer of 96 and one of 160 channels, which
is 13 % fewer FLOPs and parameters; ``v1`` is MobileNet-V1 without two layers of 512. The recipe is
not public: SGD with Nesterov momentum and a cosine from 0.1 for 90 epochs of 256 images are ours.

``small`` names subgroups of emoji; ``small,rival=plain`` keeps all layers, ``rival=one_map`` has
one group.
"""

from typing import Literal

import vision as v
from configs.parts import emoji, imagenet
from papers.ulsam.method import MobileNetV1, MobileNetV2
from vision import ops, spec

# Half as wide, without the layers of 1,024 channels, for images of 48 pixels.
SMALL = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1), (256, 1), (512, 2))


PRECISION = spec(v.Precision, compute="bfloat16")


def get_config() -> v.Config:
    return recipe(spec(MobileNetV2, attention=(12, 15), precision=PRECISION))


def v1() -> v.Config:
    return recipe(spec(MobileNetV1, attention=(8, 9), activation="relu", precision=PRECISION))


def recipe(tower: v.Config) -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=256, augment=normalise),
        model=tower,
        objective=spec(v.Classify),
        optimizer=imagenet.nesterov(0.1),
        total="90 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(rival: Literal["", "plain", "one_map"] = "") -> v.Config:
    changes = {
        "": {"attention": (4, 5)},
        "plain": {},
        "one_map": {"attention": (4, 5), "groups": 1},
    }[rival]
    tower = spec(
        MobileNetV1, layers=SMALL, width_multiplier=0.5, stride=1, activation="relu", **changes
    )
    return emoji.supervised(tower, learning_rate=4e-3, steps=300)
