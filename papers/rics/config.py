"""Stability under one-pixel shifts with and without RICS: ResNet-50 on ImageNet.

    python train.py --config=papers/rics/config.py --workdir=workdirs/rics
    python evaluate.py --workdir=workdirs/rics

Shifman and Weiss, Lost in Translation, 2024. Pictures are resized to 288 pixels: the crop in the
middle has 224, and RICS chooses one of 41 x 41 such crops of 264, so that both see things at one
size and both have room to move. Nothing of the training is the paper's, which starts from trained
weights: set `init_from`.

`small` is a narrow ResNet that looks at 16 pixels of noise with a digit in it, of which RICS sees
26; under a minute.
"""

import vision as v
from configs.parts import imagenet
from papers.rics.method import Rics
from vision import ops, spec
from vision.data.ops.sliders import Slider


def moves(data, window, picture):
    """The crop in the middle, and RICS with either score; cyclic moves of the latter."""

    def over(side, **given):
        return spec(v.Translation, data=data([spec(ops.CenterCrop, size=side)]), **given)

    return {
        "centre": over(window),
        "rics": spec(Rics, evaluator=over(picture), window_px=window),
        "rics_hash": spec(Rics, evaluator=over(picture), window_px=window, score="hash"),
        "cyclic": spec(Rics, evaluator=over(picture, cyclic=True), window_px=window, cyclic=True),
    }


def get_config() -> v.Config:
    values = [spec(ops.ValueRange), spec(ops.Normalize)]

    def data(crop):
        return spec(
            v.EvalData,
            source=spec(v.Tfds, name="imagenet2012", split="validation"),
            batch_size=512,
            ops=[spec(ops.Decode), spec(ops.Resize, size=288), *crop, *values],
        )

    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=1024, augment=values),
        model=spec(v.ResNet, depth=50),
        objective=spec(v.Classify),
        optimizer=imagenet.nesterov(0.4),
        total="90 epochs",
        evaluators=moves(data, window=224, picture=264),
    )


def small() -> v.Config:
    canvas = [spec(ops.CenterPad, size=(28, 28), fill=(0,)), spec(Slider, name="noise", scale=2.0)]
    values = spec(ops.ValueRange, low=-1, high=1)

    def data(crop):
        return spec(
            v.EvalData,
            source=spec(v.Digits, split="test"),
            batch_size=360,
            ops=[*canvas, *crop, values],
            threads=0,
        )

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Digits, split="train"),
            batch_size=64,
            ops=[*canvas, spec(ops.RandomCrop, size=16), values],
            threads=1,
        ),
        model=spec(v.ResNet, depth=10, width_multiplier=0.25, head_zero_init=False),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=1e-2,
            schedule=spec(v.Cosine, warmup="1 epochs"),
        ),
        total="15 epochs",
        evaluators=moves(data, window=16, picture=26),
        log_every="20 steps",
    )
