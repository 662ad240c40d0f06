"""A classifier trained on some labels and evaluated on all, by the Frechet mean (Loki).

    python train.py --config=papers/loki/config.py --workdir=workdirs/loki

Roberts et al., Geometry-Aware Adaptation for Pretrained Models, 2023. Nothing is trained by Loki:
this is a classifier of the digits 0, 1, 2, 4, 6 and 7 that ship, evaluated on all ten, whose
distances are those of their mean features. ``line`` observes 0, 3, 6 and 9, and digits lie as far
apart as they differ.
"""

import vision as v
from configs.parts.small import eval_data, train_data
from papers.loki.method import GeometricAnswers
from vision import spec


def get_config() -> v.Config:
    return small()


def small() -> v.Config:
    return experiment(observed=(0, 1, 2, 4, 6, 7), means=read("train"))


def line() -> v.Config:
    """Observes 0, 3, 6 and 9; digits lie as far apart as they differ."""
    return experiment(observed=(0, 3, 6, 9), positions=tuple((float(i),) for i in range(10)))


def experiment(observed, **where):
    return spec(
        v.Experiment,
        data=train_data(
            spec(
                v.Relabel,
                source=spec(v.Digits, split="train"),
                mapping=[(str(digit), str(digit)) for digit in observed],
                unmapped="drop",
            ),
            64,
            threads=0,
        ),
        model=spec(v.ViT, width=48, depth=2, heads=4, patch=2, pool="mean"),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.99),
            learning_rate=3e-3,
            schedule=spec(v.Cosine, warmup="20 steps"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        total="200 steps",
        evaluators={"all": spec(GeometricAnswers, data=read("test"), observed=observed, **where)},
        log_every="50 steps",
    )


def read(split: str):
    return eval_data(spec(v.Digits, split=split), 360)
