"""An Example as the authors train it: fill in their recipe.

    python train.py --config=CONFIG --workdir=workdirs/example
    python train.py --config=CONFIG:small --workdir=workdirs/example_small

``small`` is the method on data that ships, seconds a run; ``small,weight=0`` its baseline.
"""

import vision as v
from vision.papers.example.method import Example


def get_config() -> v.Config:
    normalise = [v.spec(v.ops.ValueRange), v.spec(v.ops.Normalize)]
    crop = [v.spec(v.ops.Decode), v.spec(v.ops.RandomResizedCrop, size=224)]
    central = [
        v.spec(v.ops.Decode),
        v.spec(v.ops.Resize, size=256),
        v.spec(v.ops.CenterCrop, size=224),
    ]
    train = v.spec(v.Tfds, name="imagenet2012", split="train")
    val = v.spec(v.Tfds, name="imagenet2012", split="validation")
    return v.spec(
        v.Experiment,
        data=v.spec(
            v.TrainData,
            source=train,
            batch_size=1024,
            ops=[*crop, v.spec(v.ops.RandomFlip), *normalise],
            threads=16,
        ),
        model=v.spec(v.ViT, variant="S/16"),
        objective=v.spec(Example),
        optimizer=v.spec(
            v.Optimizer,
            method=v.spec(v.adamw),
            learning_rate=1e-3,
            schedule=v.spec(v.Cosine, warmup="5 epochs"),
            weight_decay=0.05,
        ),
        total="300 epochs",
        evaluators={
            "val": v.spec(
                v.Classification,
                data=v.spec(v.EvalData, source=val, batch_size=1024, ops=[*central, *normalise]),
            )
        },
        evaluate_every="10 epochs",
    )


def small(weight: float = 0.1) -> v.Config:
    test = v.spec(
        v.EvalData,
        source=v.spec(v.Digits, split="test"),
        batch_size=360,
        ops=[v.spec(v.ops.ValueRange, low=-1, high=1)],
    )
    return v.spec(
        v.Experiment,
        data=v.spec(
            v.TrainData,
            source=v.spec(v.Digits, split="train"),
            batch_size=64,
            batch_ops=[v.spec(v.batch_ops.BatchValueRange, low=-1, high=1)],
            threads=0,
        ),
        model=v.spec(v.ViT, width=32, depth=2, heads=2, patch=2, pool="mean"),
        objective=v.spec(Example, weight=weight),
        optimizer=v.spec(
            v.Optimizer,
            method=v.spec(v.adamw),
            learning_rate=3e-3,
            schedule=v.spec(v.Cosine, warmup="20 steps"),
            weight_decay=0.05,
        ),
        total="300 steps",
        evaluators={"test": v.spec(v.Classification, data=test)},
        log_every="50 steps",
    )
