"""CIFAR-100 in seven tasks, whose models search each other's galleries (d-simplex, HOC).

    python train.py --config=papers/d_simplex/config.py --workdir=workdirs/d_simplex
    python train.py --config=d_simplex:small --workdir=workdirs/d_simplex_small

Biondi et al., Stationary Representations, 2024: ten classes, then six times fifteen, 20 images of
every old class, 70 epochs each from the model before. A replacement by a stronger tower is a stage
of its own with the same ``classes``. The authors' towers are pretrained on ImageNet-32; here the
first task starts at random. ``matrix.json`` of the last stage has the accuracies.

``small`` learns six of the digits that ship, and then all ten with 20 of every old one.
"""

import vision as v
from papers.d_simplex.matrix import CrossSearch
from papers.d_simplex.method import Stationary
from vision import batch_ops, ops, spec
from vision.scenario.continual import Exemplars

REHEARSED = 20


def get_config() -> v.Config:
    return stream(
        train=spec(v.Tfds, name="cifar100", split="train"),
        test=spec(v.Tfds, name="cifar100", split="test"),
        tasks=[range(10), *(range(i, i + 15) for i in range(10, 100, 15))],
        classes=1024,
        batch_size=128,
        augment=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
        model=spec(v.ResNet, depth=18, stem="cifar", num_classes=1023),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=1e-3,
            weight_decay=5e-4,
        ),
        total="70 epochs",
    )


def small() -> v.Config:
    return stream(
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        tasks=[range(6), range(6, 10)],
        classes=16,
        batch_size=64,
        augment=[spec(batch_ops.BatchRandomCrop, padding=1, fill="edge")],
        model=spec(v.PlainConv, width=24, depth=2, num_classes=15),
        optimizer=spec(v.Optimizer, method=spec(v.adamw), learning_rate=3e-3),
        total="150 steps",
    )


def stream(train, test, tasks, classes, batch_size, augment, **run):
    """A run and its memory per task, and the search by and of all models."""
    tasks = [tuple(task) for task in tasks]

    def read(source):
        values = [spec(ops.ValueRange, low=0, high=1)]
        return spec(v.EvalData, source=source, batch_size=500, ops=values)

    stages = []
    for number, task in enumerate(tasks):
        new = spec(v.OfClasses, source=train, classes=task)
        source = new
        if number:
            memory = spec(v.Subset, source=train, keys_file=f"stage:memory{number - 1}/keys.txt")
            source = spec(v.Concat, sources=[new, memory])
        before = spec(v.InitFrom, source=f"workdir:stage:task{number - 1}")
        experiment = spec(
            v.Experiment,
            data=spec(
                v.TrainData,
                source=source,
                batch_size=batch_size,
                batch_ops=[spec(batch_ops.BatchValueRange, low=0, high=1), *augment],
                threads=0,
            ),
            objective=spec(Stationary, classes=classes, follows=number > 0),
            init_from=before if number else None,
            **run,
        )
        stages.append(spec(v.Stage, name=f"task{number}", do=experiment))
        if number + 1 < len(tasks):
            kept = spec(
                Exemplars,
                run_of=f"stage:task{number}",
                data=read(new),
                total=REHEARSED * sum(len(each) for each in tasks[: number + 1]),
                earlier=f"stage:memory{number - 1}" if number else "",
            )
            stages.append(spec(v.Stage, name=f"memory{number}", do=kept))
    search = spec(
        CrossSearch,
        runs=[f"stage:task{i}" for i in range(len(tasks))],
        gallery=read(train),
        queries=read(test),
    )
    return spec(v.Scenario, stages=[*stages, spec(v.Stage, name="search", do=search)])
