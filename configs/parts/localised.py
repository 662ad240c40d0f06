"""Classifiers whose maps are compared with where the object is.

`large` is VGG-16, trained as its paper says, on ImageNet; maps are compared with the boxes of the
validation set, which come as parquet files of ours: columns `image` (JPEG), `label` and `boxes`
(JSON lists of y0, x0, y1, x1), all of the image's class.

`small` is a narrow CNN that names the colour of the one thing in scenes of 32 pixels, by the mean
of its last map; with `biased` every colour has a background of its own while training, and any
background later.
"""

from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from vision.config.specs import spec
from vision.data import ops
from vision.data.columns import ClassLabel
from vision.data.pipeline import EvalData
from vision.data.regions import Boxes
from vision.data.sources.parquet import Parquet
from vision.data.sources.scenes import Scenes
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.attribution import Attribution
from vision.models.plain_conv import PlainConv
from vision.models.vgg import VGG
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Staircase

MAX_BOXES = 20
NORMALISED = [spec(ops.ValueRange), spec(ops.Normalize)]
# Plain things in four colours on four plain backgrounds.
WORLD = {
    "image_size": 32,
    "colours": ("red", "yellow", "green", "blue"),
    "backgrounds": ("paper", "stone", "night", "brick"),
    "variants": ("solid",),
    "textures": ("plain",),
}


def large(root, maps):
    boxes = spec(
        EvalData,
        source=spec(
            Parquet,
            path=f"{root}/*.parquet",
            columns={"label": spec(ClassLabel), "boxes": spec(Boxes, max_boxes=MAX_BOXES)},
        ),
        batch_size=32,
        ops=[
            spec(ops.Decode),
            spec(ops.Resize, size=256),
            spec(ops.CenterCrop, size=224),
            *NORMALISED,
        ],
    )
    explained = spec(Attribution, data=boxes, maps=maps, target="predicted", objects=MAX_BOXES)
    return spec(
        Experiment,
        data=imagenet.train(batch_size=256, augment=NORMALISED),
        model=spec(VGG, depth=16, head_zero_init=False),
        objective=spec(Classify),
        optimizer=spec(
            Optimizer,
            method=spec(sgd),
            learning_rate=0.01,
            schedule=spec(Staircase, factor=0.1, every="25 epochs"),
            weight_decay=5e-4,
            decay="coupled",
        ),
        total="74 epochs",
        evaluators={**imagenet.evaluation(256, NORMALISED), "maps": explained},
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def scenes(split, examples, features=("image", "label"), **more):
    world = {
        **WORLD,
        "num_objects": (1, 1),
        "label": "colour",
        "shapes": ("circle", "triangle", "square", "star"),
        "sizes": ("small", "medium"),
    }
    return spec(Scenes, split=split, num_examples=examples, features=features, **(world | more))


def small(maps, biased=False, examples=300, **more):
    source = scenes("test", examples, ("image", "label", "boxes", "masks"))
    data = eval_data(source, 100, threads=0)
    fields = {"target": "predicted", "masks": "masks", "tolerance_px": 2, **more}
    explained = {"maps": spec(Attribution, data=data, maps=maps, **fields)} if maps else {}
    return spec(
        Experiment,
        data=train_data(scenes("train", 2000, spurious=1.0 if biased else 0.0), 64),
        model=spec(PlainConv, width=16, depth=3, norm="none", pool="mean"),
        objective=spec(Classify),
        optimizer=adamw_cosine(5e-3, weight_decay=0.0, clip_norm=None),
        total="250 steps",
        evaluators={"unseen": spec(Classification, data=data), **explained},
        log_every="50 steps",
    )
