"""Your own images: one sub-folder per class, nothing else to write.

    python train.py --config=configs/folder_vit.py --workdir=workdirs/mine \\
        --config.data.source.root=/path/to/images \\
        --config.evaluators.val.data.source.root=/path/to/images

or, shorter, with the folder after a colon:

    python train.py --config=configs/folder_vit.py:/path/to/images --workdir=workdirs/mine

A tenth of every class is held out for evaluation. Files that cannot be decoded are masked,
counted and listed in bad_records.jsonl. Trains from scratch: with a few hundred images expect
little; the smaller the set, the smaller the model and the longer the run should be. Short options
after the folder: ``model`` (vit, resnet18, resnet50, convnext_t), ``size`` (px), ``batch``.
"""

import vision as v
from configs.parts.own_images import Tower, held_out, tower, training
from vision import ops, spec


def get_config(
    folder: str = "images", model: Tower = "vit", size: int = 64, batch: int = 64
) -> v.Config:
    return training(
        spec(v.Folder, root=folder, part="train", fraction=0.1),
        tower(model, size),
        spec(v.Classify, label_smoothing=0.1),
        {"val": held_out(folder, size, [spec(ops.ValueRange, low=-1, high=1)])},
        size=size,
        batch=batch,
    )
