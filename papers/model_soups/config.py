"""Runs to make a soup of: CLIP ViT-B/32, fine-tuned on ImageNet with recipes drawn at random.

    python train.py --config=papers/model_soups/config.py:start --workdir=workdirs/soup/start \\
        --config.init_from.source=open_clip:timm/vit_base_patch32_clip_224.openai:open_clip_model.safetensors
    for i in $(seq 0 71); do
        python train.py --config=papers/model_soups/config.py:$i --workdir=workdirs/soup/$i
    done
    python evaluate.py --average=$(echo workdirs/soup/[0-9]* | tr ' ' ,) --average_mode=greedy \\
        --workdir=workdirs/soup/greedy

Wortsman et al., Model soups, 2022. ``start`` fits a head to the locked tower; every run begins
there. Held out, for greedy, is the last 1 % of the training set, where the paper has 2 %. The
recipe of the head is ours.

``small`` learns colours in plain scenes of 24 pixels, and ``small,run=0``, ``small,run=1``, ... are
fine-tunes from workdirs/soup/start on a few in textures and noise; minutes for all of them.
"""

from typing import Literal

import vision as v
from configs.parts import imagenet
from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import COLOURS, scenes
from papers.model_soups.method import recipe
from vision import batch_ops, ops, spec

START = "workdir:workdirs/soup/start"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pictures of the small fine-tunes, beside the plain ones of their start.
ROUGH = {
    "styles": ("noisy", "painterly"),
    "variants": ("solid", "outlined", "bordered"),
    "textures": ("plain", "striped", "checked", "dotted"),
    "backgrounds": ("paper", "stone", "night", "sand", "wood"),
}


def get_config(run: int | Literal["start"] = 0) -> v.Config:
    of = None if run == "start" else recipe(run)
    values = [spec(ops.ValueRange), spec(ops.Normalize, mean=MEAN, std=STD)]
    augment = spec(ops.RandAugment, num_ops=of.augmentations, magnitude=of.magnitude) if of else ()
    rules = list(v.DECAY_KERNELS)
    if not of:
        rules = [
            spec(v.ParameterRule, pattern="/head/"),
            spec(v.ParameterRule, pattern=".*", learning_rate=0),
        ]
    return spec(
        v.Experiment,
        data=imagenet.train(
            batch_size=512,
            augment=[*([augment] if of else ()), *values],
            batch_ops=mixed(of, imagenet.NUM_CLASSES),
        ),
        model=spec(
            v.ViT,
            variant="B/32",
            class_position=True,
            pre_norm=True,
            norm_epsilon=1e-5,
            activation="quick_gelu",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        init_from=spec(v.InitFrom, source=START, head="read" if of else "new"),
        objective=spec(v.Classify, label_smoothing=of.label_smoothing if of else 0.0),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=of.learning_rate if of else 1e-3,
            schedule=spec(v.Cosine, warmup="500 steps"),
            weight_decay=of.weight_decay if of else 0.0,
            clip_norm=1.0,
            rules=rules,
        ),
        total=f"{of.epochs if of else 10} epochs",
        evaluators=imagenet.evaluation(batch_size=512, normalise=values, resize=224),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(run: int | Literal["start"] = "start") -> v.Config:
    of = None if run == "start" else recipe(run)
    world = {"label": "colour", **(ROUGH if of else {})}
    augment = spec(ops.RandAugment, num_ops=of.augmentations, magnitude=of.magnitude) if of else ()
    return spec(
        v.Experiment,
        data=train_data(
            scenes("train", 1000 if of else 8000, ("image", "label"), **world),
            64,
            *mixed(of, len(COLOURS)),
            ops=[augment] if of else (),
        ),
        model=spec(v.ViT, width=48, depth=2, heads=4, patch=6, pool="mean"),
        init_from=spec(v.InitFrom, source=START, head="read") if of else None,
        objective=spec(v.Classify, label_smoothing=of.label_smoothing if of else 0.0),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            # So few steps of so small a tower: 5e-4..5e-3, or some runs would not leave the start.
            learning_rate=0.5 * of.learning_rate**0.5 if of else 3e-3,
            schedule=spec(v.Cosine, warmup="20 steps"),
            weight_decay=of.weight_decay if of else 0.05,
            clip_norm=1.0,
        ),
        total=f"{of.epochs} epochs" if of else "400 steps",
        evaluators={
            "held_out": spec(v.Classification, data=unseen("val", 500, world)),
            "test": spec(v.Classification, data=unseen("test", 2000, world)),
        },
        log_every="50 steps",
    )


def mixed(of, num_classes):
    return (
        [spec(batch_ops.Mixup, num_classes=num_classes, alpha=of.mixup)] if of and of.mixup else []
    )


def unseen(split, examples, world):
    return eval_data(scenes(split, examples, ("image", "label"), **world), 500)
