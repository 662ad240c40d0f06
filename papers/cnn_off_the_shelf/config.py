"""A linear SVM on features of a network trained for another task, with 16 views.

    python evaluate.py --config=papers/cnn_off_the_shelf/config.py:mit67 \\
        --config.init_from.source=timm:resnet50.tv_in1k --workdir=workdirs/off_the_shelf

Razavian et al., CNN Features off-the-shelf, 2014. The folder has a folder per class; 80 % of each
is for training, 20 % for testing, as MIT-67 has 80 and 20 images. A ResNet-50 replaces OverFeat,
whose weights are in a format that is no longer read. Training would update its head only.

``small`` learns six shapes in scenes of 32 pixels and is measured on the six that it has not seen,
from 20 images of each.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.cnn_off_the_shelf.method import OffTheShelf
from vision import ops, spec

SEEN = ("circle", "square", "star", "crescent", "flower", "arrow")
NEW = ("triangle", "cross", "drop", "hexagon", "tee", "pill")


def get_config(folder: str = "images") -> v.Config:
    values = [
        spec(ops.Decode),
        spec(ops.Resize, size=256),
        spec(ops.CenterCrop, size=224),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]

    def pictures(part):
        return spec(v.Folder, root=folder, part=part, fraction=0.2)

    def read(part):
        return spec(v.EvalData, source=pictures(part), batch_size=32, ops=values, on_error="mask")

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData, source=pictures("train"), batch_size=64, ops=values, on_error="mask"
        ),
        model=spec(v.ResNet, depth=50),
        init_from=spec(v.InitFrom, source="timm:resnet50.tv_in1k", head="new"),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=1e-3,
            rules=[
                spec(v.ParameterRule, pattern="/head/"),
                spec(v.ParameterRule, pattern=".*", learning_rate=0.0),
            ],
        ),
        total="1 epochs",
        evaluators={
            "svm": spec(OffTheShelf, train=read("train"), test=read("val")),
            "svm_views": spec(OffTheShelf, train=read("train"), test=read("val"), augment=True),
        },
    )


def scenes(split, examples, shapes):
    return spec(
        v.Scenes,
        split=split,
        num_examples=examples,
        features=("image", "label"),
        label="shape",
        shapes=shapes,
        image_size=32,
        num_objects=(1, 1),
        sizes=("medium", "large"),
        variants=("solid",),
    )


def unseen(split, examples, shapes):
    source = scenes(split, examples, shapes)
    return eval_data(source, 250)


def small() -> v.Config:
    train, test = unseen("val", 20 * len(NEW), NEW), unseen("test", 1000, NEW)
    return spec(
        v.Experiment,
        data=train_data(scenes("train", 6000, SEEN), 64),
        model=spec(v.ResNet, depth=10, stem="imagenet", width_multiplier=0.25),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="250 steps",
        evaluators={
            "seen": spec(v.Classification, data=unseen("test", 1000, SEEN)),
            "svm": spec(OffTheShelf, train=train, test=test),
            "svm_views": spec(OffTheShelf, train=train, test=test, augment=True),
        },
        log_every="50 steps",
    )
