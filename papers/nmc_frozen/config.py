"""Nearest class means of a network that stays as it is, over a stream of classes.

    python evaluate.py --config=papers/nmc_frozen/config.py --workdir=workdirs/nmc
    python train.py --config=papers/nmc_frozen/config.py:small --workdir=workdirs/nmc_small

Janson et al., A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning,
2022: CIFAR-100 in ten tasks, resized for a ViT-B/16 of ImageNet-21k, no augmentation. Trained
further, only its head would move, which the means do not look at.

``small`` learns eight shapes in scenes of 16 pixels and then meets the digits that ship, two at a
time. ``small,finetuned=true`` is what the means are compared with: the same network trained on one
task after the other.
"""

from configs.parts.small import adamw_cosine
from papers.nmc_frozen.method import NearestMeanStream
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.digits import Digits
from vision.data.sources.scenes import Scenes
from vision.data.sources.splits import OfClasses
from vision.data.sources.tfds import Tfds
from vision.evaluators.accuracy.classification import Classification
from vision.models.plain_conv import PlainConv
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.scenario.stages import Scenario, Stage
from vision.train.optim import Optimizer, ParameterRule, sgd
from vision.weights.init_from import InitFrom

SHAPES = ("circle", "triangle", "square", "star", "cross", "crescent", "flower", "arrow")
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))


def get_config() -> Config:
    values = [spec(ops.Resize, size=224), spec(ops.ValueRange, low=-1, high=1)]
    train = spec(Tfds, name="cifar100", split="train")
    parts = [
        spec(OfClasses, source=train, classes=tuple(range(i, i + 10))) for i in range(0, 100, 10)
    ]

    def read(source):
        return spec(EvalData, source=source, batch_size=100, ops=values)

    return spec(
        Experiment,
        data=spec(TrainData, source=train, batch_size=64, ops=values),
        model=spec(ViT, width=768, depth=12, heads=12, patch=16),
        init_from=spec(InitFrom, source="timm:vit_base_patch16_224.augreg_in21k", head="new"),
        objective=spec(Classify),
        optimizer=spec(
            Optimizer,
            method=spec(sgd, momentum=0.9),
            learning_rate=1e-2,
            rules=[
                spec(ParameterRule, pattern="/head/"),
                spec(ParameterRule, pattern=".*", learning_rate=0.0),
            ],
        ),
        total="1 epochs",
        evaluators={
            metric: spec(
                NearestMeanStream,
                stream=[read(part) for part in parts],
                test=read(spec(Tfds, name="cifar100", split="test")),
                metric=metric,
            )
            for metric in ("euclidean", "cosine")
        },
    )


def digits(split, classes=None):
    source = spec(Digits, split=split)
    return spec(OfClasses, source=source, classes=classes) if classes else source


def large(classes=None, split="train", **data):
    """Digits as large and as colourful as scenes."""
    resized = [spec(ops.ToRgb), spec(ops.Resize, size=16)]
    return {"source": digits(split, classes), "ops": resized, **data}


def read(**digits):
    data = large(**digits)
    values = [*data["ops"], spec(ops.ValueRange, low=-1, high=1)]
    return spec(EvalData, batch_size=360, **{**data, "ops": values})


def run(data, total, evaluators, **more):
    return spec(
        Experiment,
        data=spec(
            TrainData, batch_size=64, batch_ops=[spec(BatchValueRange, low=-1, high=1)], **data
        ),
        model=spec(PlainConv, width=24, depth=2),
        objective=spec(Classify),
        optimizer=adamw_cosine(3e-3, "10 steps", clip_norm=None),
        total=total,
        evaluators=evaluators,
        log_every="50 steps",
        **more,
    )


def scenes():
    source = spec(
        Scenes,
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


def small(finetuned: bool = False) -> Config:
    if not finetuned:
        return scenes()
    stages = [spec(Stage, name="scenes", do=scenes())]
    for number, task in enumerate(TASKS):
        before = f"task{number - 1}" if number else "scenes"
        tuned = run(
            large(task, threads=0),
            "50 steps",
            {"test": spec(Classification, data=read(split="test"))},
            init_from=spec(InitFrom, source=f"workdir:stage:{before}"),
        )
        stages.append(spec(Stage, name=f"task{number}", do=tuned))
    return spec(Scenario, stages=stages)
