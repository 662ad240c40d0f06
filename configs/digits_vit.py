"""A small ViT on scikit-learn's 1,797 real handwritten digits (8x8): the demo.

    python train.py --config=configs/digits_vit.py --workdir=workdirs/digits_vit
    python evaluate.py --workdir=workdirs/digits_vit

Augmentation runs on the device, inside the step: the images are in memory anyway.
"""

import vision as v
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Digits, split="train"),
            batch_size=64,
            batch_ops=[
                spec(batch_ops.BatchValueRange, low=-1, high=1),
                spec(batch_ops.BatchRandomCrop, padding=1, fill="edge"),
            ],
            threads=0,
        ),
        model=spec(v.ViT, width=48, depth=3, heads=4, patch=2, pool="mean", posemb="learned"),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.99),
            learning_rate=4e-3,
            schedule=spec(v.Cosine, warmup="5 epochs"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        ema=spec(v.Ema, decay=0.99),
        total="80 epochs",
        evaluators={
            "test": spec(
                v.Classification,
                data=spec(
                    v.EvalData,
                    source=spec(v.Digits, split="test"),
                    batch_size=360,
                    ops=[spec(ops.ValueRange, low=-1, high=1)],
                ),
            ),
        },
        evaluate_every="20 epochs",
        log_every="10 steps",
    )
