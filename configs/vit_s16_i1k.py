"""ViT-S/16 on ImageNet-1k for 90 epochs, the plain recipe of Beyer et al. (2022).

    python train.py --config=configs/vit_s16_i1k.py --workdir=gs://... or a local folder

"Better plain ViT baselines for ImageNet-1k" reports 76.5 % top-1 for this recipe after 6 to 7
hours on a TPU-v3-8. We have not trained it at full length.
"""

import vision as v
from configs.parts import imagenet
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    to_range = spec(ops.ValueRange, low=-1, high=1)
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=1024,
            augment=[
                spec(ops.RandAugment, num_ops=2, magnitude=10, magnitude_std=0, probability=1),
                to_range,
            ],
            batch_ops=[spec(batch_ops.Mixup, num_classes=imagenet.NUM_CLASSES, alpha=0.2)],
        ),
        model=spec(
            v.ViT,
            variant="S/16",
            pool="mean",
            posemb="sincos2d",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, moment_dtype="bfloat16"),
            learning_rate=1e-3,
            schedule=spec(v.Cosine, warmup="10_000 steps"),
            # The paper's 1e-4 is not multiplied by the learning rate; ours is.
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        total="90 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=[to_range]),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
