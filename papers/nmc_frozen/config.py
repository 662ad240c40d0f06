"""Nearest class means of a frozen network over a stream of classes.

    python evaluate.py --config=papers/nmc_frozen/config.py --workdir=workdirs/nmc
    python train.py --config=papers/nmc_frozen/config.py:small --workdir=workdirs/nmc_small

Janson et al., A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning,
2022: CIFAR-100 in ten tasks, resized for a ViT-B/16 of ImageNet-21k, no augmentation. Trained
further, only its head would move, which the means do not look at.

``small`` learns eight shapes in scenes of 16 pixels and then meets the digits that ship, two at a
time. ``small,finetuned=true`` is what the means are compared with: the same network trained on one
task after the other.
"""

import vision as v
from configs.parts.small import adamw_cosine
from papers.nmc_frozen.method import NearestMeanStream
from vision import batch_ops, ops, spec

SHAPES = ("circle", "triangle", "square", "star", "cross", "crescent", "flower", "arrow")
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


def get_config() -> v.Config:
    values = [spec(ops.Resize, size=224), spec(ops.ValueRange, low=-1, high=1)]
    train = spec(v.Tfds, name="cifar100", split="train")
    parts = [
        spec(v.OfClasses, source=train, classes=tuple(range(i, i + 10))) for i in range(0, 100, 10)
    ]

    def read(source):
        return spec(v.EvalData, source=source, batch_size=100, ops=values)

    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=train, batch_size=64, ops=values),
        model=spec(v.ViT, width=768, depth=12, heads=12, patch=16),
        init_from=spec(v.InitFrom, source="timm:vit_base_patch16_224.augreg_in21k", head="new"),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=1e-2,
            rules=[
                spec(v.ParameterRule, pattern="/head/"),
                spec(v.ParameterRule, pattern=".*", learning_rate=0.0),
            ],
        ),
        total="1 epochs",
        evaluators={
            metric: spec(
                NearestMeanStream,
                stream=[read(part) for part in parts],
                test=read(spec(v.Tfds, name="cifar100", split="test")),
                metric=metric,
            )
            for metric in ("euclidean", "cosine")
        },
    )


def digits(split, classes=None):
    source = spec(v.Digits, split=split)
    return spec(v.OfClasses, source=source, classes=classes) if classes else source


def large(classes=None, split="train", **data):
    """Digits as large and as colourful as scenes."""
    resized = [spec(ops.ToRgb), spec(ops.Resize, size=16)]
    return {"source": digits(split, classes), "ops": resized, **data}


def read(**digits):
    data = large(**digits)
    values = [*data["ops"], spec(ops.ValueRange, low=-1, high=1)]
    return spec(v.EvalData, batch_size=360, **{**data, "ops": values})


def run(data, total, evaluators, **more):
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            batch_size=64,
            batch_ops=[spec(batch_ops.BatchValueRange, low=-1, high=1)],
            **data,
        ),
        model=spec(v.PlainConv, width=24, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3, "10 steps", clip_norm=None),
        total=total,
        evaluators=evaluators,
        log_every="50 steps",
        **more,
    )


def scenes():
    source = spec(
        v.Scenes,
        split="train",
        num_examples=4000,
        features=("image", "label"),
        label="shape",
        shapes=SHAPES,
        image_size=16,
        num_objects=(1, 1),
        sizes=("large",),
        variants=("solid",),
    )
    means = spec(
        NearestMeanStream, stream=[read(classes=task) for task in TASKS], test=read(split="test")
    )
    return run({"source": source, "threads": 1}, "250 steps", {"means": means})


def small(finetuned: bool = False) -> v.Config:
    if not finetuned:
        return scenes()
    stages = [spec(v.Stage, name="scenes", do=scenes())]
    for number, task in enumerate(TASKS):
        before = f"task{number - 1}" if number else "scenes"
        tuned = run(
            large(task, threads=0),
            "50 steps",
            {"test": spec(v.Classification, data=read(split="test"))},
            init_from=spec(v.InitFrom, source=f"workdir:stage:{before}"),
        )
        stages.append(spec(v.Stage, name=f"task{number}", do=tuned))
    return spec(v.Scenario, stages=stages)
