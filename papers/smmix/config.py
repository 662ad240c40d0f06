"""DeiT-S on ImageNet-1k with image mixing guided by its own attention (SMMix).

    python train.py --config=papers/smmix/config.py --workdir=workdirs/smmix

Chen et al., SMMix: Self-Motivated Image Mixing for Vision Transformers, 2023: DeiT's recipe, 300
epochs, batches of 1,024.

``small`` learns eight colours from 30 scenes of 24 pixels each, in textures, noise and clutter;
``small,rival=cutmix`` is the same tower with CutMix and mixup, ``small,rival=plain`` with neither.
"""

from typing import Literal

import vision as v
from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from configs.parts.small_pairs import COLOURS, scenes
from papers.smmix.method import SMMix
from vision import batch_ops, ops, spec

WORLD = {
    "label": "colour",
    "num_objects": (1, 1),
    "styles": ("noisy", "painterly"),
    "variants": ("solid", "outlined", "bordered"),
    "textures": ("plain", "striped", "checked", "dotted"),
    "backgrounds": ("paper", "stone", "night", "sand", "wood"),
    "clutter": 2,
}


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=1024,
            augment=[
                spec(ops.RandAugment),
                *normalise,
                spec(ops.RandomErasing, fill="noise"),
            ],
        ),
        model=spec(
            v.ViT,
            variant="S/16",
            drop_path=0.1,
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(SMMix),
        optimizer=adamw_cosine(1e-3, "5 epochs"),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(rival: Literal["", "cutmix", "plain"] = "") -> v.Config:
    objective = spec(SMMix)
    if rival:
        objective = spec(v.Classify, label_smoothing=0.1)
    mixing = [spec(batch_ops.MixupCutMix, num_classes=len(COLOURS))] if rival == "cutmix" else []
    test = scenes("test", 1000, ("image", "label", "masks"), **WORLD)
    return spec(
        v.Experiment,
        data=train_data(
            scenes("train", 30 * len(COLOURS), ("image", "label"), **WORLD), 32, *mixing
        ),
        model=spec(v.ViT, width=48, depth=2, heads=4, patch=4, pool="cls"),
        objective=objective,
        optimizer=adamw_cosine(3e-3),
        total="300 steps",
        evaluators={"test": spec(v.Classification, data=eval_data(test, 500))},
        log_every="50 steps",
    )
