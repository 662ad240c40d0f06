"""A ResNet-50 on Places365 that imitates a frozen ImageNet network beside its own task.

    python train.py --config=papers/mrcnn_scenes/config.py --workdir=workdirs/mrcnn_scenes
    python train.py --config=mrcnn_scenes:small --workdir=workdirs/mrcnn_scenes_small

Wang et al., Knowledge Guided Disambiguation for Large-Scale Scene Classification with
Multi-Resolution CNNs, 2017: 600,000 steps of 256 images, SGD with momentum 0.9, decay of 5e-4, a
rate of 0.1 that falls to a tenth every 150,000; soft labels of 1,000 objects weigh 0.25.
``resolution=384`` reads crops of 336 pixels with a deeper network. Their crops are corners and
the centre at side ratios of 1 to 0.625; here boxes of as large shares of the image are anywhere.

``small`` names subgroups of emoji of 48 pixels on grounds and imitates the zoo's tower, which was
trained on the same classes; ``small,knowledge=0`` learns alone.
"""

from typing import Any, Literal

import vision as v
from configs.parts import emoji
from papers.mrcnn_scenes.method import Disambiguated
from papers.mrcnn_scenes.towers import WithKnowledge
from vision import ops, spec

DEPTHS, SHARES = {256: 50, 384: 101}, (0.39, 1.0)
RULES = (
    spec(v.ParameterRule, pattern=r"/extra/", learning_rate=0),
    spec(v.ParameterRule, pattern=r"/kernel$"),
    spec(v.ParameterRule, pattern=r".*", weight_decay=0.0),
)
OBJECTS, SUBGROUPS = 1000, 79


def get_config(resolution: Literal[256, 384] = 256, knowledge: float = 0.25) -> v.Config:
    size, half = resolution * 7 // 8, spec(v.Precision, compute="bfloat16")
    values = [spec(ops.ValueRange), spec(ops.Normalize)]

    def read(split, *cropped):
        source = spec(v.Tfds, name="places365_small", split=split)
        return source, [spec(ops.Decode), spec(ops.Resize, size=resolution), *cropped, *values]

    train, ops_train = read(
        "train",
        spec(ops.RandomResizedCrop, size=size, scale=SHARES, ratio=(0.875, 1.14)),
        spec(ops.RandomFlip),
    )
    test, ops_test = read("validation", spec(ops.CenterCrop, size=size))
    asked = spec(v.EvalData, source=test, batch_size=256, ops=ops_test)
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=train, batch_size=256, ops=ops_train, threads=16),
        model=spec(
            WithKnowledge,
            student=spec(v.ResNet, depth=DEPTHS[resolution], num_classes=365, precision=half),
            extra=spec(v.ResNet, depth=50, num_classes=OBJECTS, precision=half),
            num_classes=365,
        ),
        init_from=spec(
            v.InitFrom, source="timm:resnet50.tv_in1k", into="extra", head="read", compare=False
        ),
        objective=spec(Disambiguated, knowledge=knowledge),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.1,
            schedule=spec(v.Staircase, factor=0.1, every="150000 steps"),
            weight_decay=5e-4,
            decay="coupled",
            rules=RULES,
        ),
        total="600000 steps",
        evaluators={"val": spec(v.Classification, data=asked)},
        evaluate_every="25000 steps",
    )


def small(knowledge: float = 0.25) -> v.Config:
    tower = {"depth": 10, "width_multiplier": 0.375, "zero_init_residual": False}
    config: Any = emoji.supervised(
        spec(
            WithKnowledge,
            student=spec(v.ResNet, num_classes=SUBGROUPS, **tower),
            extra=spec(v.ResNet, num_classes=SUBGROUPS, **tower),
            num_classes=SUBGROUPS,
        ),
        learning_rate=4e-3,
        steps=300,
    )
    config.init_from = spec(v.InitFrom, source="zoo:emoji_cnn", into="extra", head="read")
    config.objective = spec(Disambiguated, knowledge=knowledge, label_smoothing=0.1)
    config.optimizer.rules = list(RULES)
    del config.evaluators["neighbours"]
    return config
