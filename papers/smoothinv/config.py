"""A poisoned ResNet-18 of CIFAR-10, and its backdoor from a single image.

    python train.py --config=papers/smoothinv/config.py --workdir=workdirs/smoothinv

Sun and Kolter, Single Image Backdoor Inversion, 2023, on what they invert: 400 steps, 40 draws. A
tenth of the images of nine classes has a patch of a tenth of their width and the label 0, as in
BiBadDiff. Their images have 224 pixels and radii of 5 and 10; the radius here is that of 5 by the
root of the count of pixels. ``kind`` is ``patch`` or ``blend``, ``rate=0`` trains without poison.

``small`` is a CNN on digits of 8 pixels with a patch of 2 x 2; a minute. One run: the patch turns
98 % of other digits, climbing to its class from one of four turns 91 % (to the next best 75 %), and
30 % of the energy lies in 6 % of the pixels. Without poison 29 % (the best class 69 %), and 4 %.
"""

from typing import Literal

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.smoothinv.evaluator import BackdoorInversion
from papers.smoothinv.inversion import Inversion
from papers.smoothinv.trigger import Poisoned, Trigger
from vision import batch_ops, ops, spec

Kind = Literal["patch", "blend"]


def get_config(kind: Kind = "patch", rate: float = 0.1) -> v.Config:
    trigger = spec(Trigger, kind=kind)

    def read(split):
        return spec(v.Tfds, name="cifar10", split=split)

    test = eval_data(read("test[:1000]"), 250, spec(ops.Decode), spec(ops.CenterCrop, size=32))
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(Poisoned, source=read("train"), trigger=trigger, rate=rate),
            batch_size=256,
            ops=[spec(ops.Decode), spec(ops.CenterCrop, size=32)],
            batch_ops=[
                spec(batch_ops.BatchRandomCrop, padding=2),
                spec(batch_ops.BatchValueRange, low=-1, high=1),
            ],
        ),
        model=spec(v.ResNet, depth=18, stem="cifar", head_zero_init=False),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, nesterov=True),
            learning_rate=0.1,
            schedule=spec(v.Cosine, warmup="5 epochs"),
            weight_decay=5e-4,
            decay="coupled",
            rules=v.DECAY_KERNELS,
        ),
        total="100 epochs",
        evaluators={
            "test": spec(v.Classification, data=test),
            "backdoor": inversion(test, trigger, eps=5 / 7, images=1),
        },
    )


def small(kind: Kind = "patch", rate: float = 0.1) -> v.Config:
    trigger = spec(Trigger, kind=kind, side=0.25)

    def read(split):
        return spec(v.Digits, split=split)

    test = eval_data(read("test"), 100, threads=0)
    poisoned = spec(Poisoned, source=read("train"), trigger=trigger, rate=rate)
    return spec(
        v.Experiment,
        data=train_data(poisoned, 64),
        model=spec(v.PlainConv, width=16, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="400 steps",
        evaluators={
            "test": spec(v.Classification, data=test),
            "backdoor": inversion(test, trigger, eps=2.0, images=4, steps=200, samples=20),
        },
        log_every="100 steps",
    )


def inversion(test, trigger, *, eps, images, steps=400, samples=40):
    return spec(
        BackdoorInversion,
        data=test,
        candidates=tuple(range(10)),
        rule=spec(Inversion, eps=eps, steps=steps),
        samples=samples,
        images=images,
        trigger=trigger,
        backdoor=0,
        mean=(0.5,),
        std=(0.5,),
    )
