"""Late interaction of patches and words, the recipe of FILIP-base.

    python train.py --config=papers/filip/config.py:'/data/pairs/train-*.parquet' ...
    python train.py --config=papers/filip/config.py:small --workdir=...

Yao et al., FILIP: Fine-grained Interactive Language-Image Pre-Training, 2022: ViT-B/32, tokens of
256 numbers, compared in half precision after every image and every text kept a quarter of them.
AdamW stands in for LAMB, and captions are not translated back and forth. Batch, learning rate and
decay are ours where the paper's are not confirmed.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from papers.filip.method import LateRetrieval
from vision import spec
from vision.blocks.similarity import LateInteraction


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    model: Any = pairs.towers("mean", width=256, text={}, tokens=True)
    model.image.variant = "B/32"
    late = spec(LateInteraction, keep=0.25, compute="bfloat16")
    return spec(
        v.Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(), batch_size=24_576),
        model=model,
        objective=spec(v.Contrast, similarity=late),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=1e-3,
            schedule=spec(v.Cosine, warmup="2_000 steps"),
            weight_decay=3e-2,
        ),
        total="30 epochs",
    )


def small() -> v.Config:
    tokens, two = small_pairs.tokenizer(), {"num_objects": (2, 2)}
    data = small_pairs.unseen(tokens, world=two)
    return small_pairs.experiment(
        small_pairs.train(tokens, world=two),
        small_pairs.transformer(tokens),
        steps=300,
        evaluators={"retrieval": spec(LateRetrieval, data=data)},
        objective=spec(v.Contrast, similarity=spec(LateInteraction), duplicates="ignore"),
        tokens=True,
    )
