"""Rounds of oracle labels and pseudo-labels, alternating with fine-tuning on both (ASPL).

    python train.py --config=papers/aspl/config.py:data/faces --workdir=workdirs/aspl

Lin et al., Active Self-Paced Learning for Cost-Effective and Progressive Face Identification, 2017.
The text after the colon is a folder with a folder per person; 80 % of the images are the unlabelled
pool, 20 % the test set. An ImageNet ResNet-18, adapted to the images for an epoch without labels,
replaces the paper's network. After every three rounds it is fine-tuned on all labels, from the
oracle and pseudo-labels, and the features are recomputed.

`small`: an autoencoder of the digits that ship gives the first features, ten labels the start.
`small,pace=0` makes no pseudo-labels.
"""

import vision as v
from papers.aspl.method import SelfPaced
from papers.aspl.rounds import Rounds
from vision import batch_ops, ops, spec


def get_config(folder: str = "data/faces") -> v.Config:
    values = [spec(ops.Decode), spec(ops.ToRgb), spec(ops.Resize, size=160)]
    centred = [*values, spec(ops.CenterCrop, size=144), spec(ops.ValueRange), spec(ops.Normalize)]
    train, test = (
        spec(v.Folder, root=folder, part=part, fraction=0.2) for part in ("train", "val")
    )
    tower = spec(v.ResNet, depth=18)

    def run(data, objective, total, **more):
        return spec(
            v.Experiment,
            data=spec(v.TrainData, batch_size=128, threads=8, **data),
            model=tower,
            objective=objective,
            optimizer=spec(
                v.Optimizer,
                method=spec(v.sgd, momentum=0.9),
                learning_rate=0.01,
                schedule=spec(v.Cosine),
                weight_decay=5e-4,
            ),
            total=total,
            **more,
        )

    view = [
        spec(ops.RandomResizedCrop, size=144, scale=(0.5, 1.0)),
        spec(ops.RandomFlip),
        spec(ops.ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        spec(ops.ValueRange),
        spec(ops.Normalize),
    ]
    start = run(
        {"source": train, "ops": [*values[:2], spec(ops.Views, pipelines=[view, view])]},
        spec(v.TwoViews),
        "1 epochs",
        init_from=spec(v.InitFrom, source="timm:resnet18.tv_in1k"),
    )
    crops = [spec(ops.RandomCrop, size=144), spec(ops.RandomFlip)]
    labelled = {"ops": [*values, *crops, spec(ops.ValueRange), spec(ops.Normalize)]}
    return stages(
        start=start,
        train=train,
        read=lambda source: spec(v.EvalData, source=source, batch_size=256, ops=centred),
        test=test,
        tune=lambda source, before, evaluators: run(
            {"source": source, **labelled},
            spec(v.Classify),
            "10 epochs",
            init_from=spec(v.InitFrom, source=f"workdir:stage:{before or 'start'}"),
            evaluators=evaluators,
        ),
        loop=spec(SelfPaced, queries=500),
        networks=3,
    )


def small(pace: float = 1.0) -> v.Config:
    values = {"low": 0, "high": 1}
    train, test = spec(v.Digits, split="train"), spec(v.Digits, split="test")

    def run(source, model, objective, total, **more):
        method = spec(v.adamw)
        return spec(
            v.Experiment,
            data=spec(
                v.TrainData,
                source=source,
                batch_size=32,
                batch_ops=[spec(batch_ops.BatchValueRange, **values)],
                threads=0,
            ),
            model=model,
            objective=objective,
            optimizer=spec(v.Optimizer, method=method, learning_rate=3e-3, schedule=spec(v.Cosine)),
            total=total,
            **more,
        )

    def tune(source, before, evaluators):
        known = {"init_from": spec(v.InitFrom, source=f"workdir:stage:{before}")} if before else {}
        model = spec(v.PlainConv, width=24, depth=2)
        return run(source, model, spec(v.Classify), "120 steps", evaluators=evaluators, **known)

    return stages(
        start=run(train, spec(v.ConvAutoencoder, widths=(8, 16)), spec(v.Reconstruct), "5 epochs"),
        train=train,
        read=lambda source: spec(
            v.EvalData, source=source, batch_size=500, ops=[spec(ops.ValueRange, **values)]
        ),
        test=test,
        tune=tune,
        loop=spec(SelfPaced, pace=pace),
        networks=2,
    )


def stages(*, start, train, read, test, tune, loop, networks):
    """The first network, and by turns three rounds of labels and a network that learns them."""
    listed = [spec(v.Stage, name="start", do=start)]
    for number in range(networks):
        before = f"network{number - 1}" if number else ""
        rounds = spec(
            Rounds,
            run_of=f"stage:{before or 'start'}",
            data=read(train),
            test=read(test),
            loop=loop,
            earlier=f"stage:labels{number - 1}" if number else "",
        )
        folder = f"stage:labels{number}"
        labelled = spec(v.Computed, source=train, file=f"{folder}/label.npy", feature="label")
        known = spec(v.Subset, source=labelled, keys_file=f"{folder}/keys.txt")
        network = tune(known, before, {"test": spec(v.Classification, data=read(test))})
        listed.append(spec(v.Stage, name=f"labels{number}", do=rounds))
        listed.append(spec(v.Stage, name=f"network{number}", do=network))
    return spec(v.Scenario, stages=listed)
