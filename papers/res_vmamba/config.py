"""Res-VMamba-S on CNFOOD-241, from random weights.

    python train.py --config=papers/res_vmamba/config.py --workdir=workdirs/res_vmamba
    python train.py --config=res_vmamba:small --workdir=workdirs/res_vmamba_small

reads the folder ``cnfood241``, which holds ``train`` and ``val`` with a folder per class (the
authors' lists of a random split are in their repository).

Chen et al., Res-VMamba, 2024, by the recipe of VMamba-S, which is Swin's: 300 epochs, AdamW at 5e-4
per 512 images after 20 epochs of warm-up, decay 0.05, gradients cut to norm 5, RandAugment, mixup
and CutMix, random erasing, label smoothing 0.1, stochastic depth 0.3, 224 pixels. Batches have 128
images; theirs of 16 are what one GPU held.

``small`` names groups of emoji of 16 pixels with three blocks; ``small,residual=False`` is VMamba.
"""

import vision as v
from configs.parts import thumbnails
from configs.parts.small import adamw_cosine
from papers.res_vmamba.method import ResVMamba
from vision import batch_ops, ops, spec

CLASSES, SIZE = 241, 224


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]

    def folder(part):
        return spec(v.Folder, root="cnfood241", part=part)

    resized = [spec(ops.Decode), spec(ops.Resize, size=256), spec(ops.CenterCrop, size=SIZE)]
    asked = spec(v.EvalData, source=folder("val"), batch_size=256, ops=[*resized, *normalise])
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=folder("train"),
            batch_size=128,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=SIZE),
                spec(ops.RandomFlip),
                spec(ops.RandAugment),
                *normalise,
                spec(ops.RandomErasing, fill="noise"),
            ],
            batch_ops=[spec(batch_ops.MixupCutMix, num_classes=CLASSES)],
            threads=16,
        ),
        model=spec(
            ResVMamba,
            num_classes=CLASSES,
            drop_path=0.3,
            remat="full",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(1.25e-4, "20 epochs", clip_norm=5.0),
        total="300 epochs",
        evaluators={"val": spec(v.Classification, data=asked)},
        evaluate_every="10 epochs",
    )


def small(residual: bool = True) -> v.Config:
    tower = spec(
        ResVMamba,
        depths=(1, 1, 1),
        width=16,
        patch=2,
        residual=residual,
        states=4,
        sequential=True,
    )
    return thumbnails.supervised(tower, learning_rate=4e-3, steps=200)
