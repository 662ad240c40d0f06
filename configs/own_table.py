"""Your own table of labels: a CSV, TSV, JSON, JSON-lines or Parquet file with a row per image.

    python train.py --config=configs/own_table.py:labels.csv --workdir=workdirs/mine
    python train.py --config=configs/own_table.py:tags.csv,labels=several --workdir=workdirs/tags
    python train.py --config=configs/own_table.py:ages.csv,labels=number,column=age \\
        --workdir=workdirs/ages

The column ``image`` has paths, relative to the table's folder (or, in Parquet, the files' bytes);
``column`` has one class, several separated by ``|``, or a number. A tenth of the rows is held out,
of every class. The best checkpoint by the held-out rows is kept: ``--step=best``. Short options:
``model``, ``size`` (px), ``batch``; all else as ``--config.KEY=VALUE``.
"""

from typing import Any, Literal

import vision as v
from configs.parts.own_images import Tower, held_out_data, tower, training
from vision import columns, spec
from vision.data.sources.splits import StratifiedSplit
from vision.evaluators.accuracy.multilabel import MultiLabelClassification

Labels = Literal["single", "several", "number"]


def get_config(
    table: str = "labels.csv",
    labels: Labels = "single",
    column: str = "label",
    model: Tower = "vit",
    size: int = 64,
    batch: int = 64,
) -> v.Config:
    feature, kind, objective, metric = {
        "single": (
            "label",
            spec(columns.ClassLabel, column=column),
            spec(v.Classify, label_smoothing=0.1),
            "val/top1",
        ),
        "several": (
            "label",
            spec(columns.MultiLabel, column=column),
            spec(v.Classify, loss_type="sigmoid"),
            "val/map",
        ),
        "number": ("target", spec(columns.Number, column=column), spec(v.Regress), "val/mae"),
    }[labels]
    parquet = table.endswith(".parquet")
    rows = spec(v.Parquet if parquet else v.Manifest, path=table, columns={feature: kind})
    by = "label" if labels == "single" else ""

    def part(name: str) -> Any:
        return spec(v.Split, source=rows, part=name, rule=spec(StratifiedSplit, by=by))

    data = held_out_data(part("val"), size, [spec(v.ops.ValueRange, low=-1, high=1)])
    evaluator = {
        "single": lambda: spec(v.Classification, data=data),
        "several": lambda: spec(MultiLabelClassification, data=data, labels="label"),
        "number": lambda: spec(v.Regression, data=data, prediction="prediction"),
    }[labels]()
    best = {"best": metric, "best_mode": "min" if labels == "number" else "max"}
    return training(
        part("train"),
        tower(model, size, num_classes=1 if labels == "number" else None),
        objective,
        {"val": evaluator},
        size=size,
        batch=batch,
        checkpoints=spec(v.Checkpoints, every="5 epochs", **best),
    )
