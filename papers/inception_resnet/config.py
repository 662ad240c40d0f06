"""Inception-ResNet-v2 on ImageNet-1k by the paper's recipe.

    python train.py --config=papers/inception_resnet/config.py --workdir=workdirs/inception_resnet
    python train.py --config=inception_resnet:small --workdir=workdirs/inception_resnet_small

Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning,
2016: RMSProp with decay 0.9 and epsilon 1, a rate of 0.045 times 0.94 every two epochs, dropout
keeps 0.8, and a running average of the parameters is evaluated. From slim, not in the paper:
batches of 640 (20 workers with 32 images), label smoothing of 0.1, decay of 4e-5; the curves end
at about 160 epochs. ``variant=v1`` and ``form=pure`` are the others that the paper compares.

``small`` names groups of emoji of 16 pixels with v1 at an eighth of its width and ten residual
blocks; ``small,form=pure`` has the same blocks without their shortcuts.
"""

from typing import Literal

import optax

import vision as v
from configs.parts import imagenet, thumbnails
from papers.inception_resnet.method import InceptionResNetV1
from vision import ops, spec

Form = Literal["residual", "pure"]


def get_config(variant: Literal["v1", "v2"] = "v2", form: Form = "residual") -> v.Config:
    tower = {"v1": InceptionResNetV1, "v2": v.InceptionResNetV2}[variant]
    normalise = [spec(ops.ValueRange, low=-1, high=1)]
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=640, augment=normalise, size=299),
        model=spec(
            tower,
            residual=form == "residual",
            dropout=0.2,
            precision=spec(v.Precision, compute="bfloat16"),
            head_zero_init=False,
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=spec(
            v.Optimizer,
            method=spec(optax.scale_by_rms, decay=0.9, eps=1.0, eps_in_sqrt=True),
            learning_rate=0.045,
            schedule=spec(v.Staircase, factor=0.94, every="2 epochs"),
            weight_decay=4e-5,
            decay="coupled",
        ),
        ema=spec(v.Ema),
        total="160 epochs",
        evaluators=imagenet.evaluation(batch_size=640, normalise=normalise, size=299, resize=342),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(form: Form = "residual") -> v.Config:
    tower = spec(
        InceptionResNetV1,
        depths=(3, 4, 3),
        residual=form == "residual",
        small_images=True,
        width_multiplier=0.125,
    )
    return thumbnails.supervised(tower, learning_rate=2e-3, steps=200)
