"""Frozen features on NWPU-RESISC45 from tenths and fifths of the labels, or VGG16 fine-tuned.

    python evaluate.py --config=papers/resisc45/config.py:data/NWPU-RESISC45 --workdir=...
    python train.py --config=resisc45:finetuned,share=0.1 --workdir=workdirs/resisc45
    python train.py --config=resisc45:small --workdir=workdirs/resisc45_small

Cheng, Han and Lu, Remote Sensing Image Scene Classification: Benchmark and State of the Art, 2017.
The folder has a folder per class. Without a mode nothing is trained: ImageNet's VGG16 gives the
features. ``finetuned`` learns from a share of every class and is asked about the rest; the paper's
rates, 1e-3 and ten times that for the new head, batches of 50 and 15,000 steps are not confirmed.

`small`: scenes of 24 pixels, by their textures, with a network that learned shapes.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.resisc45.method import RepeatedShares
from vision import ops, spec
from vision.data.sources.splits import Split

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DECODE = [spec(ops.Decode), spec(ops.Resize, size=(224, 224))]
VALUES = [spec(ops.ValueRange), spec(ops.Normalize, mean=MEAN, std=STD)]


def vgg(source, ops, **more):
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=source, batch_size=50, ops=ops, threads=8),
        model=spec(v.VGG, depth=16),
        init_from=spec(v.InitFrom, source="timm:vgg16.tv_in1k", head="new"),
        objective=spec(v.Classify),
        **more,
    )


def get_config(folder: str = "data/NWPU-RESISC45") -> v.Config:
    images = spec(v.Folder, root=folder)
    data = spec(v.EvalData, source=images, batch_size=50, ops=[*DECODE, *VALUES])
    shares = spec(
        RepeatedShares,
        data=data,
        low=tuple(-m / s for m, s in zip(MEAN, STD, strict=True)),
        high=tuple((1 - m) / s for m, s in zip(MEAN, STD, strict=True)),
    )
    return vgg(
        images,
        [*DECODE, *VALUES],
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.0),
        total="1 steps",
        evaluators={"shares": shares},
    )


def finetuned(folder: str = "data/NWPU-RESISC45", share: float = 0.2) -> v.Config:
    def part(name):
        parts = (("learned", share), ("asked", 1 - share))
        return spec(Split, source=spec(v.Folder, root=folder), part=name, parts=parts)

    data = spec(v.EvalData, source=part("asked"), batch_size=50, ops=[*DECODE, *VALUES])
    return vgg(
        part("learned"),
        [*DECODE, spec(ops.RandomFlip), *VALUES],
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=1e-3,
            rules=[spec(v.ParameterRule, pattern="/head/", learning_rate=10.0)],
            weight_decay=5e-4,
        ),
        total="15_000 steps",
        evaluators={"asked": spec(v.Classification, data=data)},
        evaluate_every="1_000 steps",
    )


def scenes(split, label, count):
    world = {"image_size": 24, "num_objects": (1, 1), "sizes": ("large",)}
    return spec(v.Scenes, split=split, num_examples=count, label=label, **world)


def small() -> v.Config:
    shares = spec(
        RepeatedShares,
        data=eval_data(scenes("test", "texture", 600), 200),
        repeats=3,
        words=32,
        c=(1.0, 100.0),
    )
    return spec(
        v.Experiment,
        data=train_data(scenes("train", "shape", 4000), 64),
        model=spec(v.PlainConv, width=16, depth=3),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="100 steps",
        evaluators={"shares": shares},
        log_every="50 steps",
    )
