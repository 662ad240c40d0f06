"""Classes that come in tasks: replay, distillation and prototypes in one protocol.

    python train.py --config=papers/cil_survey/config.py:wa --workdir=workdirs/wa

Zhou et al., Deep Class-Incremental Learning: A Survey, 2023: CIFAR-100 in ten tasks, class order of
seed 1993, 2000 exemplars; an 18-layer ResNet for small images stands for the survey's 32-layer one.
``learner`` is one of ``LEARNERS``; ``small``, or ``small,learner=replay``, takes the digits that
ship, in five tasks. The numbers of the protocol are in ``stages.json`` of the workdir.
"""

import dataclasses
from typing import Literal

import numpy as np

import vision as v
from papers.cil_survey.method import Incremental
from vision import batch_ops, ops, spec
from vision.metrics.continual import memory_in_examples
from vision.scenario.continual import ContinualEvaluation, Exemplars


@dataclasses.dataclass(frozen=True)
class Learner:
    """What distinguishes the baselines.

    Attributes:
      replays: keeps exemplars.
      distil: see ``Incremental``; then a copy of the network is carried along.
      align: see ``Incremental``.
      answers: ``head``, or ``exemplars`` or ``class means`` that are nearest.
      equal_bytes: exemplars in the place of the copy that it does not carry.
    """

    replays: bool = False
    distil: str = "none"
    align: bool = False
    answers: str = "head"
    equal_bytes: bool = False


Name = Literal[
    "finetune", "replay", "replay_equal_bytes", "lwf", "icarl", "wa", "prototypes", "joint"
]
LEARNERS: dict[Name, Learner] = {
    "finetune": Learner(),
    "replay": Learner(replays=True),
    "replay_equal_bytes": Learner(replays=True, equal_bytes=True),
    "lwf": Learner(distil="added"),
    "icarl": Learner(replays=True, distil="added", answers="exemplars"),
    "wa": Learner(replays=True, distil="shared", align=True),
    "prototypes": Learner(answers="class means"),
    "joint": Learner(),
}
# Parameters of the small tower; a test counts them.
SMALL_FLOATS = 6_514


def get_config(learner: Name = "wa") -> v.Config:
    order = np.random.RandomState(1993).permutation(100).tolist()
    return stream(
        learner,
        train=spec(v.Tfds, name="cifar100", split="train"),
        test=spec(v.Tfds, name="cifar100", split="test"),
        tasks=[order[i : i + 10] for i in range(0, 100, 10)],
        exemplars=2000,
        floats=11_220_132,
        example_bytes=32 * 32 * 3,
        run={
            "model": spec(v.ResNet, depth=18, stem="cifar"),
            "optimizer": spec(
                v.Optimizer,
                method=spec(v.sgd, momentum=0.9),
                learning_rate=0.1,
                schedule=spec(v.Staircase, factor=0.1, every="60 epochs"),
                weight_decay=5e-4,
            ),
            "total": "170 epochs",
        },
        batch_size=128,
        augment=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
    )


def small(learner: Name = "wa") -> v.Config:
    return stream(
        learner,
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        tasks=[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]],
        exemplars=100,
        floats=SMALL_FLOATS,
        example_bytes=8 * 8,
        run={
            "model": spec(v.PlainConv, width=24, depth=2),
            "optimizer": spec(
                v.Optimizer,
                method=spec(v.sgd, momentum=0.9),
                learning_rate=0.05,
                schedule=spec(v.Cosine),
                weight_decay=5e-4,
            ),
            "total": "600 steps" if learner == "joint" else "120 steps",  # of each task
        },
        batch_size=32,
        augment=[spec(batch_ops.BatchRandomCrop, padding=1, fill="edge")],
    )


def stream(name, train, test, tasks, exemplars, floats, example_bytes, run, batch_size, augment):
    """The stages of a learner: a run and then its memory per task, and the test of them all."""
    learner = LEARNERS[name]
    if learner.equal_bytes:
        exemplars += memory_in_examples(floats, example_bytes)
    if name == "joint":
        tasks = [[label for task in tasks for label in task]]
    values = {"low": 0, "high": 1}

    def read(source):
        return spec(v.EvalData, source=source, batch_size=500, ops=[spec(ops.ValueRange, **values)])

    def memory(stage):
        return spec(v.Subset, source=train, keys_file=f"stage:memory{stage}/keys.txt")

    stages, means = [], []
    for number, task in enumerate(tasks):
        if name == "prototypes":
            so_far = [label for labels in tasks[: number + 1] for label in labels]
            means.append(read(spec(v.OfClasses, source=train, classes=so_far)))
            if number:
                continue
        task_data = spec(v.OfClasses, source=train, classes=task)
        source = task_data
        if learner.replays and number:
            source = spec(v.Concat, sources=[task_data, memory(number - 1)])
        before = spec(v.InitFrom, source=f"workdir:stage:task{number - 1}")
        experiment = spec(
            v.Experiment,
            data=spec(
                v.TrainData,
                source=source,
                batch_size=batch_size,
                batch_ops=[spec(batch_ops.BatchValueRange, **values), *augment],
                threads=0,
            ),
            objective=spec(
                Incremental,
                tasks=tasks,
                stage=number,
                distil=learner.distil,
                align=learner.align,
            ),
            init_from=before if number else None,
            **run,
        )
        stages.append(spec(v.Stage, name=f"task{number}", do=experiment))
        if learner.replays:
            kept = spec(
                Exemplars,
                run_of=f"stage:task{number}",
                data=read(task_data),
                total=exemplars,
                earlier=f"stage:memory{number - 1}" if number else "",
            )
            stages.append(spec(v.Stage, name=f"memory{number}", do=kept))
            if learner.answers == "exemplars":
                means.append(read(memory(number)))
    last = len(tasks) - 1
    protocol = spec(
        ContinualEvaluation,
        runs=[f"stage:task{0 if name == 'prototypes' else i}" for i in range(len(tasks))],
        test=read(test),
        tasks=tasks,
        means=means,
        teacher=learner.distil != "none",
        exemplars=f"stage:memory{last}" if learner.replays else "",
        example_bytes=example_bytes,
    )
    return spec(v.Scenario, stages=[*stages, spec(v.Stage, name="protocol", do=protocol)])
