"""Worst-case forget sets, evaluated by retraining and by fine-tuning (Challenging Forgets).

    python train.py --config=papers/worst_forget/config.py --workdir=workdirs/forget

Fan et al., Challenging Forgets, 2024: a ResNet-18 on CIFAR-10, 10 % to forget, twenty rounds of two
epochs of SignSGD at 1e-3. The stages are the network, the searched and a random set of as many
examples, for each of them a network trained anew on the rest and the first one fine-tuned on the
rest, and the comparison.

``small`` is a small CNN on the digits that ship, three rounds of 40 steps.
"""

import vision as v
from configs.parts.small import eval_data
from papers.worst_forget.comparison import CompareUnlearning
from papers.worst_forget.method import WorstForget
from vision import batch_ops, spec


def get_config() -> v.Config:
    steps = 2 * 50_000 // 256
    return scenario(
        train=spec(v.Tfds, name="cifar10", split="train"),
        test=spec(v.Tfds, name="cifar10", split="test"),
        batch_size=256,
        augment=[spec(batch_ops.BatchRandomCrop, padding=4), spec(batch_ops.BatchRandomFlip)],
        model=spec(v.ResNet, depth=18, stem="cifar"),
        optimizer=sgd_of(0.1),
        tuned=sgd_of(0.01),
        totals=("182 epochs", "10 epochs"),
        search={"rounds": 20, "steps": steps, "batch_size": 256},
    )


def small() -> v.Config:
    return scenario(
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        batch_size=64,
        augment=[],
        model=spec(v.PlainConv, width=12, depth=2),
        optimizer=adam_of(1e-2),
        tuned=adam_of(1e-3),
        totals=("200 steps", "60 steps"),
        search={"rounds": 3, "steps": 40, "batch_size": 64},
    )


def sgd_of(learning_rate):
    return spec(
        v.Optimizer,
        method=spec(v.sgd, momentum=0.9),
        learning_rate=learning_rate,
        schedule=spec(v.Cosine),
        weight_decay=5e-4,
        decay="coupled",
    )


def adam_of(learning_rate):
    return spec(
        v.Optimizer, method=spec(v.adamw), learning_rate=learning_rate, schedule=spec(v.Cosine)
    )


def scenario(*, train, test, batch_size, augment, model, optimizer, tuned, totals, search):

    def read(source):
        return eval_data(source, 360)

    def classifier(source, optimizer, total, **begin):
        return spec(
            v.Experiment,
            data=spec(
                v.TrainData,
                source=source,
                batch_size=batch_size,
                batch_ops=[*augment, spec(batch_ops.BatchValueRange, low=-1, high=1)],
                threads=0,
            ),
            model=model,
            objective=spec(v.Classify),
            optimizer=optimizer,
            total=total,
            evaluators={"test": spec(v.Classification, data=read(test))},
            **begin,
        )

    def stage(name, do):
        return spec(v.Stage, name=name, do=do)

    stages = [stage("trained", classifier(train, optimizer, totals[0]))]
    for name in ("worst", "random"):
        rounds = search["rounds"] if name == "worst" else 0
        searched = {**search, "rounds": rounds}
        rest = spec(v.Subset, source=train, keys_file=f"stage:{name}/retain.txt")
        begin = spec(v.InitFrom, source="workdir:stage:trained", head="read")
        compared = spec(
            CompareUnlearning,
            forget=f"stage:{name}/forget.txt",
            retrained=f"stage:retrained_{name}",
            runs={"trained": "stage:trained", "tuned": f"stage:tuned_{name}"},
            data=read(train),
            test=read(test),
        )
        stages += [
            stage(name, spec(WorstForget, run_of="stage:trained", data=read(train), **searched)),
            stage(f"retrained_{name}", classifier(rest, optimizer, totals[0])),
            stage(f"tuned_{name}", classifier(rest, tuned, totals[1], init_from=begin)),
            stage(f"known_{name}", compared),
        ]
    return spec(v.Scenario, stages=stages)
