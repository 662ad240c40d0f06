"""Your own images: one sub-folder per class, nothing else to write.

    python train.py --config=configs/folder_vit.py --workdir=workdirs/mine \\
        --config.data.source.root=/path/to/images \\
        --config.evaluators.val.data.source.root=/path/to/images

or, shorter, with the folder after a colon:

    python train.py --config=configs/folder_vit.py:/path/to/images --workdir=workdirs/mine

A tenth of every class is held out for evaluation. Files that cannot be decoded are masked,
counted and listed in bad_records.jsonl. Trains from scratch: with a few hundred images expect
little; the smaller the set, the smaller the model and the longer the run should be.
"""

import vision as v
from configs.parts.own_images import held_out
from vision import ops, spec

SIZE = 64


def get_config(folder: str = "images") -> v.Config:
    to_range = spec(ops.ValueRange, low=-1, high=1)
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=folder, part="train", fraction=0.1),
            batch_size=64,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=SIZE, scale=(0.35, 1.0)),
                spec(ops.RandomFlip),
                to_range,
            ],
            on_error="mask",
        ),
        model=spec(v.ViT, width=192, depth=6, heads=3, patch=8, pool="mean", posemb="sincos2d"),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.99),
            learning_rate=1e-3,
            schedule=spec(v.Cosine, warmup="2 epochs"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        ema=spec(v.Ema, decay=0.999),
        total="30 epochs",
        evaluators={"val": held_out(folder, SIZE, [to_range])},
        evaluate_every="5 epochs",
        log_every="10 steps",
    )
