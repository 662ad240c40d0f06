"""GLNet-4G on ImageNet-1k by the authors' recipe.

    python train.py --config=papers/glmix/config.py --workdir=workdirs/glmix
    python train.py --config=glmix:small --workdir=workdirs/glmix_small

Zhu et al., Revisiting the Integration of Convolution and Attention for Vision Backbone, 2024, and
the authors' configs/main_cx2.yaml: 300 epochs of batches of 2,048, AdamW at 2e-3 after 5 epochs of
warm-up, gradients clipped at 5, RandAugment of magnitude 9, MixUp of 0.8 and CutMix, an average of
the weights with 0.9999. Stochastic depth is 0.15 for ``4g``, 0.3 for ``9g``, 0.4 for ``16g`` and
0.1 for ``stl``. Theirs repeats every image three times in an epoch; 2,048 are no whole triples.

``small`` names the subgroups of emoji on grounds, 32 px and 16 slots. Without ``rival`` it is the
paper's block; ``alone`` has slots that do not attend to each other, ``slots`` no convolutions.
"""

from typing import Literal

import vision as v
from configs.parts import emoji, imagenet
from configs.parts.small import adamw_cosine, train_data
from papers.glmix.method import GLNet
from papers.glmix.variants import Variant
from vision import batch_ops, ops, spec

DROP_PATH = {"4g": 0.15, "9g": 0.3, "16g": 0.4, "stl": 0.1, "stl_learned": 0.1}


def get_config(variant: Variant = "4g") -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=2048,
            augment=[spec(ops.RandAugment), *normalise, spec(ops.RandomErasing, fill="noise")],
            batch_ops=[spec(batch_ops.MixupCutMix, num_classes=imagenet.NUM_CLASSES)],
        ),
        model=spec(
            GLNet,
            variant=variant,
            drop_path=DROP_PATH[variant],
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(2e-3, "5 epochs", clip_norm=5.0),
        ema=spec(v.Ema, decay=0.9999),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(rival: Literal["", "alone", "slots"] = "") -> v.Config:
    changes = {"": {}, "alone": {"relate": False}, "slots": {"local": 0}}[rival]
    source = emoji.emoji("train", num_examples=100_000, part="seen", image_size=32)
    asked = {"part": "unseen", "houses": emoji.LEARNED, "image_size": 32}
    return spec(
        v.Experiment,
        data=train_data(source, 32, spec(batch_ops.BatchRandomFlip)),
        model=spec(
            GLNet,
            variant="4g",
            widths=(32, 64),
            depths=(1, 2),
            attended=("none", "none"),
            slots=16,
            **changes,
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(3e-3),
        total="300 steps",
        evaluators={"unseen": spec(v.Classification, data=emoji.asked(**asked))},
        log_every="50 steps",
    )
