"""Your own pairs of an image and a text: a CSV, TSV, JSON, JSON-lines or Parquet file, or shards.

    python train.py --config=configs/own_pairs.py:pairs.csv --workdir=workdirs/pairs
    python train.py --config=configs/own_pairs.py:'pairs/*.parquet',size=96 --workdir=workdirs/pairs
    python train.py --config=configs/own_pairs.py:'pairs-{000..009}.tar' --workdir=workdirs/pairs

The columns are ``image`` (paths relative to the table's folder, or in Parquet the files' bytes) and
``caption``; shards of WebDataset have the text in ``.txt``. A twentieth of the pairs is held out.
A small dual encoder with CLIP's tokenizer, from scratch: a few thousand pairs teach it little.
Short options: ``model``, ``size`` (px), ``batch``. For large towers see configs/siglip_vit_b16.py.
"""

from typing import Any

import vision as v
from configs.parts import pairs
from configs.parts.own_images import Tower, tower
from vision import ops, spec
from vision.data.sources.splits import StratifiedSplit


def get_config(
    table: str = "pairs.csv", model: Tower = "vit", size: int = 64, batch: int = 128
) -> v.Config:
    tokenizer = pairs.clip_tokenizer(length=32)
    if table.endswith((".parquet", ".tar")):
        rows = pairs.source(table)
    else:
        rows = spec(v.Manifest, path=table, columns={"caption": spec(v.Captions)})
    to_range = spec(ops.ValueRange, low=-1, high=1)
    tokenize = spec(ops.Tokenize, tokenizer=tokenizer)

    def part(name: str) -> Any:
        shares = (("train", 0.95), ("val", 0.05))
        rule = spec(StratifiedSplit, by="")
        return spec(v.Split, source=rows, part=name, parts=shares, rule=rule)

    held_out = spec(
        v.EvalData,
        source=part("val"),
        batch_size=batch,
        ops=[
            spec(ops.Decode),
            spec(ops.Resize, size=size + size // 8),
            spec(ops.CenterCrop, size=size),
            to_range,
            tokenize,
        ],
        on_error="mask",
    )
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=part("train"),
            batch_size=batch,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=size, scale=(0.6, 1.0)),
                to_range,
                tokenize,
            ],
            on_error="mask",
        ),
        model=spec(
            v.Dual,
            image=tower(model, size),
            text=spec(
                v.TextTransformer,
                vocab_size=v.ClipTokenizer().vocab_size,
                width=192,
                depth=4,
                heads=3,
                context=32,
            ),
            width=192,
        ),
        objective=spec(v.Contrast, duplicates="ignore"),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98),
            learning_rate=1e-3,
            schedule=spec(v.Cosine, warmup="2 epochs"),
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        total="30 epochs",
        evaluators={"val": spec(v.ImageTextRetrieval, data=held_out, tokenizer=tokenizer)},
        evaluate_every="5 epochs",
        log_every="10 steps",
    )
