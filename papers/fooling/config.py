"""Images that fool a ResNet-50 of ImageNet, by both evolutions and by gradient ascent.

    python evaluate.py --config=papers/fooling/config.py --workdir=workdirs/fooling
    python train.py --config=papers/fooling/config.py:small --workdir=workdirs/fooling_small

Nguyen et al., Deep Neural Networks are Easily Fooled, 2015, with 20,000 generations of pixels and
5,000 of patterns; their AlexNet is not a tower of this library. Nothing is trained.

``small`` is a CNN on digits of 8 pixels and the paper's 200 generations; a minute. One run: 98.9 %
of digits right, median confidence 0.974 on them, 0.999 on evolved pixels, 0.987 on patterns and
0.999 after ascent, at distances of 0.37 to 0.42 from the nearest digit, digits being 0.16 apart.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.fooling.ascent import Ascent
from papers.fooling.encodings import Patterns, Pixels
from papers.fooling.evaluator import Fooling
from papers.fooling.method import MapElites
from vision import ops, spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def producers(pixels, patterns, **ascent):
    return {
        "pixels": spec(MapElites, encoding=spec(Pixels), generations=pixels),
        "patterns": spec(MapElites, encoding=spec(Patterns), generations=patterns),
        "ascent": spec(Ascent, **ascent),
    }


def get_config() -> v.Config:
    values = [
        spec(ops.Decode),
        spec(ops.Resize, size=256),
        spec(ops.CenterCrop, size=224),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=MEAN, std=STD),
    ]

    def read(split):
        return spec(v.Tfds, name="imagenet2012", split=split)

    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=read("train"), batch_size=32, ops=values),
        model=spec(v.ResNet, depth=50),
        init_from=spec(v.InitFrom, source="timm:resnet50.tv_in1k", head="read"),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.0),
        total="1 steps",
        evaluators={
            "fooling": spec(
                Fooling,
                data=spec(v.EvalData, source=read("validation"), batch_size=100, ops=values),
                producers=producers(20_000, 5_000, step_size=1.0, decay=1e-3),
                mean=MEAN,
                std=STD,
            )
        },
    )


def small() -> v.Config:
    def read(split):
        return spec(v.Digits, split=split)

    test = eval_data(read("test"), 100, threads=0)
    return spec(
        v.Experiment,
        data=train_data(read("train"), 64),
        model=spec(v.PlainConv, width=16, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="400 steps",
        evaluators={
            "test": spec(v.Classification, data=test),
            "fooling": spec(
                Fooling, data=test, producers=producers(200, 200), mean=(0.5,), std=(0.5,)
            ),
        },
        log_every="100 steps",
    )
