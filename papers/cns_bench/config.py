"""Failure points under continuous nuisance shifts: ResNet, ConvNeXt and ViT on ImageNet.

    for tower in resnet convnext vit; do
        python train.py --config=papers/cns_bench/config.py:$tower \\
            --workdir=workdirs/cns/$tower
    done
    python evaluate.py --workdir=workdirs/cns/resnet --features=workdirs/features

Duenkel et al., CNS-Bench, 2025, asks trained models about pictures that a diffusion model made, 100
classes by 14 nuisances by 6 scales; here the nuisances are drawn over 1,000 pictures of the
validation set's, and the recipe of training is ours. Set `init_from` to ask a trained model.

`small` (`small,tower=vit`) reads digits of 8 pixels, magnified to 16, where a slider has room;
seconds each.
"""

from typing import Literal

import vision as v
from configs.parts import imagenet
from configs.parts.small import adamw_cosine
from vision import ops, spec

Tower = Literal["resnet", "convnext", "vit"]
SLIDERS = ("fog", "snow", "blur", "noise", "contrast", "clutter")  # digits have no hue


def optimizer(learning_rate, warmup):
    return adamw_cosine(
        learning_rate,
        warmup,
    )


def get_config(tower: Tower = "resnet") -> v.Config:
    values = [spec(ops.ValueRange), spec(ops.Normalize)]
    towers = {
        "resnet": spec(v.ResNet, depth=50),
        "convnext": spec(v.ConvNeXt, variant="tiny"),
        "vit": spec(v.ViT, variant="S/16"),
    }
    asked = spec(
        v.EvalData,
        source=spec(v.Tfds, name="imagenet2012", split="validation[:1000]"),
        batch_size=500,
        ops=[spec(ops.Decode), spec(ops.Resize, size=256), spec(ops.CenterCrop, size=224), *values],
    )
    suite = imagenet.evaluation(batch_size=1000, normalise=values)
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=1024, augment=values),
        model=towers[tower],
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=optimizer(1e-3, "10 epochs"),
        total="90 epochs",
        evaluators={**suite, "sliders": spec(v.Severity, data=asked)},
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(tower: Tower = "resnet") -> v.Config:
    wide = {"head_zero_init": False}
    towers = {
        "resnet": spec(v.ResNet, depth=10, width_multiplier=0.25, **wide),
        "convnext": spec(
            v.ConvNeXt, depths=(1, 1), dims=(32, 64), stem_stride=4, layer_scale=None, **wide
        ),
        "vit": spec(v.ViT, width=48, depth=2, heads=4, patch=4, pool="mean", **wide),
    }
    values = [spec(ops.Resize, size=16), spec(ops.ValueRange, low=-1, high=1)]
    asked = spec(
        v.EvalData, source=spec(v.Digits, split="test"), batch_size=180, ops=values, threads=0
    )
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Digits, split="train"),
            batch_size=64,
            ops=values,
            threads=1,
        ),
        model=towers[tower],
        objective=spec(v.Classify),
        optimizer=optimizer(3e-3, "20 steps"),
        total="10 epochs",
        evaluators={
            "test": spec(v.Classification, data=asked),
            "sliders": spec(v.Severity, data=asked, sliders=SLIDERS),
        },
        log_every="50 steps",
    )
