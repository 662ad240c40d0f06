"""PlainMamba-L1 on ImageNet-1k.

    python train.py --config=papers/plain_mamba/config.py --workdir=workdirs/mamba

Yang et al., PlainMamba: Improving Non-Hierarchical Mamba in Visual Recognition, 2024: 300 epochs,
batches of 2,048, AdamW at 5e-4 per 512 images, Swin's augmentation.

``small`` reads the 64 pixels of handwritten digits one by one. ``small,order=raster`` begins every
row and column at the same side and does not know the direction of its steps.
"""

from typing import Literal

import vision as v
from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.plain_mamba.method import PlainMamba
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=2048,
            augment=[spec(ops.RandAugment), *normalise, spec(ops.RandomErasing, fill="noise")],
            batch_ops=[spec(batch_ops.MixupCutMix, num_classes=imagenet.NUM_CLASSES)],
        ),
        model=spec(
            PlainMamba,
            variant="L1",
            drop_path=0.2,
            remat="full",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(2e-3, "15 epochs", clip_norm=5.0),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(order: Literal["snake", "raster"] = "snake") -> v.Config:
    snake = order == "snake"
    return spec(
        v.Experiment,
        data=train_data(
            spec(v.Digits, split="train"),
            32,
            spec(batch_ops.BatchRandomCrop, padding=1, fill="edge"),
            threads=0,
        ),
        model=spec(
            PlainMamba,
            width=16,
            depth=2,
            patch=1,
            stem="patches",
            states=4,
            kernel=3,
            snake=snake,
            directions=snake,
            sequential=True,
        ),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(8e-3),
        total="900 steps",
        evaluators={
            "test": spec(
                v.Classification,
                data=eval_data(spec(v.Digits, split="test"), 360),
            ),
        },
        log_every="50 steps",
    )
