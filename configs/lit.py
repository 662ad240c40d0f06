"""LiT: a text tower learns to read a trained image tower, which is locked.

    python train.py --config=configs/lit.py:'/data/pairs/train-*.parquet' --workdir=...

Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022. One rule of the optimizer
locks the tower: no gradient, no optimizer state, no change. The image has no projection, so the
text answers in the tower's own space. Start it from trained image weights: from random ones it
learns little.
"""

import vision as v
from configs.parts import pairs
from vision import spec


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    rules = [
        spec(v.ParameterRule, pattern="model/image/", learning_rate=0),
        *v.DECAY_KERNELS,
    ]
    text = {"width": 768, "heads": 12}
    return spec(
        v.Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(), batch_size=16_384),
        model=pairs.towers("cls", width=768, text=text, image_projection=False),
        objective=spec(v.Contrast),
        optimizer=pairs.long_warmup(weight_decay=1e-4, rules=rules),
        total="55_000 steps",
    )
