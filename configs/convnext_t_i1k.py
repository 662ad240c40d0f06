"""ConvNeXt-T on ImageNet-1k for 300 epochs, the recipe of Liu et al. (2022).

    python train.py --config=configs/convnext_t_i1k.py --workdir=workdirs/convnext_t

"A ConvNet for the 2020s" reports 82.1 % top-1. We have not trained it at full length.
"""

import vision as v
from configs.parts import imagenet
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange, low=0, high=1), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=4096,
            augment=[
                spec(ops.RandAugment, num_ops=2, magnitude=9, magnitude_std=0.5),
                *normalise,
                spec(ops.RandomErasing, probability=0.25),
            ],
            batch_ops=[
                spec(
                    batch_ops.MixupCutMix,
                    num_classes=imagenet.NUM_CLASSES,
                    mixup_alpha=0.8,
                    cutmix_alpha=1.0,
                )
            ],
        ),
        model=spec(
            v.ConvNeXt,
            variant="tiny",
            drop_path=0.1,
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=4e-3,
            schedule=spec(v.Cosine, warmup="20 epochs"),
            weight_decay=0.05,
        ),
        ema=spec(v.Ema, decay=0.9999),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
