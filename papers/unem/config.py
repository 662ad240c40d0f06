"""Transductive few-shot tasks with unrolled EM and learned hyper-parameters (UNEM).

    python train.py --config=papers/unem/config.py:data/mini_imagenet --workdir=workdirs/unem

Zhou et al., UNEM: UNrolled Generalized EM for Transductive Few-Shot Learning, 2025. The text after
the colon is a folder with `train`, `val` and `test`, a folder per class in each: 64, 16 and 20
classes of miniImageNet, images of 84 pixels. A ResNet-18 learns the first; the constants are
learned on tasks of the second, where as many classes are in the support as there are.

`small`: a small CNN learns the digits 0 to 4; tasks have all ten digits in the support and three in
the queries. Constants are learned on the training records and measured on the test records, of the
same classes. `small,dirichlet=true` takes the network's ten logits, trained on all digits, for
those of a zero-shot model.
"""

import vision as v
from configs.parts.small import adamw_cosine
from papers.unem.evaluator import UnrolledEM
from vision import batch_ops, ops, spec

GRID = (0.01, 1.0, 5.0, 20.0, 60.0)
SCALES = (0.5, 1.0, 2.0)


def get_config(folder: str = "data/mini_imagenet") -> v.Config:
    decode = [spec(ops.Decode), spec(ops.ToRgb)]
    values = [spec(ops.ValueRange), spec(ops.Normalize)]

    def read(part):
        prepared = [*decode, spec(ops.Resize, size=92), spec(ops.CenterCrop, size=84), *values]
        return spec(
            v.EvalData,
            source=spec(v.Folder, root=f"{folder}/{part}"),
            batch_size=256,
            ops=prepared,
        )

    crops = [spec(ops.RandomResizedCrop, size=84), spec(ops.RandomFlip)]
    tasks = {
        f"{shots}_shot": spec(
            UnrolledEM,
            fit=read("val"),
            data=read("test"),
            ways=16,
            present=5,
            shots=shots,
            grid=GRID,
            scales=SCALES,
        )
        for shots in (1, 5, 10, 20)
    }
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=f"{folder}/train"),
            batch_size=128,
            ops=[*decode, *crops, *values],
            threads=8,
        ),
        model=spec(v.ResNet, depth=18),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.1,
            schedule=spec(v.Cosine),
            weight_decay=1e-4,
        ),
        total="90 epochs",
        evaluators=tasks,
    )


def small(dirichlet: bool = False) -> v.Config:
    values = {"low": 0, "high": 1}

    def read(split):
        source, value = spec(v.Digits, split=split), spec(ops.ValueRange, **values)
        return spec(v.EvalData, source=source, batch_size=500, ops=[value])

    known = spec(v.Digits, split="train")
    if not dirichlet:
        known = spec(v.OfClasses, source=known, classes=(0, 1, 2, 3, 4))
    form = {"form": "dirichlet", "output": "logits", "balance": 20.0} if dirichlet else {}
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=known,
            batch_size=64,
            batch_ops=[spec(batch_ops.BatchValueRange, **values)],
        ),
        model=spec(v.PlainConv, width=24, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3, "10 steps", clip_norm=None),
        total="30 steps" if dirichlet else "150 steps",
        evaluators={
            "tasks": spec(
                UnrolledEM,
                fit=read("train"),
                data=read("test"),
                ways=10,
                present=3,
                shots=2,
                queries=20,
                fit_tasks=200,
                tasks=200,
                layers=5,
                steps=150,
                batch_size=8,
                grid=GRID,
                scales=SCALES,
                **form,
            )
        },
    )
