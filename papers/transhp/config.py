"""DeiT-S on CIFAR-100 with prompts for its twenty superclasses (TransHP).

    python train.py --config=papers/transhp/config.py --workdir=workdirs/transhp

Wang et al., TransHP: Image Classification with Hierarchical Prompting, 2023: DeiT's recipe, 300
epochs, batches of 1,024, one prompting block in the later half for a hierarchy of two levels. On
ImageNet the paper has eleven levels of 2 to 406 classes, whose list is its authors': give each as a
``Level`` with its ``ancestors``, lambda .1 five times, .15 four times, 1, 1.

``small`` learns 16 kinds of shapes in four families from 60 scenes each. ``small,rival=apart`` has
the coarse head without the prompting, ``rival=plain`` has neither.
"""

from typing import Literal

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.transhp.level import Level
from papers.transhp.method import TransHP
from vision import batch_ops, ops, spec
from vision.data.sources.scenes.vocabulary import FAMILIES, FAMILY_OF

# The superclass of every class of CIFAR-100, in the order of their names.
CIFAR = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)
SHAPES = ("circle", "crescent", "triangle", "square", "star", "flower", "cross", "arrow")
VARIANTS = ("solid", "outlined")
FAMILY = tuple(FAMILIES.index(FAMILY_OF[shape]) for shape in SHAPES for _ in VARIANTS)
WORLD = {
    "label": "leaf",
    "num_objects": (1, 1),
    "shapes": SHAPES,
    "variants": VARIANTS,
    "colours": ("white",),
    "backgrounds": ("night",),
    "sizes": ("large",),
    "rotation_deg": 0.0,
}


def get_config() -> v.Config:
    normalise = [spec(ops.Resize, size=224), spec(ops.ValueRange), spec(ops.Normalize)]
    read = [spec(ops.RandomFlip), spec(ops.RandAugment), *normalise]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Tfds, name="cifar100", split="train"),
            batch_size=1024,
            ops=[*read, spec(ops.RandomErasing, fill="noise")],
            batch_ops=[spec(batch_ops.MixupCutMix, num_classes=100)],
        ),
        model=spec(
            v.ViT, variant="S/16", drop_path=0.1, precision=spec(v.Precision, compute="bfloat16")
        ),
        objective=spec(
            TransHP, levels=[spec(Level, block=8, ancestors=CIFAR)], label_smoothing=0.1
        ),
        optimizer=adamw_cosine(1e-3, "5 epochs"),
        total="300 epochs",
        evaluators={
            "test": spec(
                v.Classification,
                data=spec(
                    v.EvalData,
                    source=spec(v.Tfds, name="cifar100", split="test"),
                    batch_size=1000,
                    ops=normalise,
                ),
            )
        },
        evaluate_every="10 epochs",
    )


def small(rival: Literal["", "apart", "plain"] = "") -> v.Config:
    prompting = spec(
        TransHP,
        levels=[spec(Level, block=1, ancestors=FAMILY)],
        label_smoothing=0.1,
        absorb=not rival,
    )
    test = scenes("test", 600, ("image", "label"), **WORLD)
    return spec(
        v.Experiment,
        data=train_data(scenes("train", 60 * len(FAMILY), ("image", "label"), **WORLD), 32),
        model=spec(v.ViT, width=48, depth=3, heads=4, patch=6, pool="cls"),
        objective=spec(v.Classify, label_smoothing=0.1) if rival == "plain" else prompting,
        optimizer=adamw_cosine(2e-3),
        total="240 steps",
        evaluators={"test": spec(v.Classification, data=eval_data(test, 300))},
        log_every="50 steps",
    )
