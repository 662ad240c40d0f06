"""CLIP ViT-B/16 on image-text pairs, the recipe of Radford et al. (2021).

    python train.py --config=configs/clip_vit_b16.py:'/data/cc12m/train-*.parquet' --workdir=...
    python train.py --config=configs/clip_vit_b16.py:'/data/cc12m/{00000..01242}.tar' --workdir=...

Parquet files have the columns `image` (encoded bytes) and `caption`; tar files are WebDataset
shards with the caption in `.txt`. Differences from the published model: its image tower has a
LayerNorm before the blocks and a position for the class token, which our ViT has not. The paper's
68.3 % zero-shot on ImageNet comes from 400 million pairs; we have not trained this at full length.
"""

import vision as v
from configs.parts import pairs
from vision import spec


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    return spec(
        v.Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(), batch_size=32_768),
        model=pairs.towers("cls", width=512, text={"pool": "argmax", "activation": "quick_gelu"}),
        objective=spec(v.Contrast),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=5e-4,
            schedule=spec(v.Cosine, warmup="2_000 steps"),
            weight_decay=0.2,
        ),
        total="32 epochs",
    )
