"""Contrastive learning from sentences of long captions, with grouped patches (DreamLIP).

    python train.py --config=papers/dreamlip/config.py --workdir=...
    python train.py --config=papers/dreamlip/config.py:small --workdir=...

Zheng et al., DreamLIP: Language-Image Pre-training with Long Captions, 2024: ViT-B/16 on CC3M.
`data/cc3m-*.parquet` has the columns `image`, `caption` and `caption_long`, a list of what several
captioners said, which is split into sentences. Texts per image, batch, learning rate and decay are
not confirmed or given as ranges; these are ours, within them.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from papers.dreamlip.evaluator import PatchSegmentation
from papers.dreamlip.method import Painted
from vision import ops, spec
from vision.blocks.grouping import Grouping

TEXTS = 4
THREE = {"num_objects": (3, 3)}
GROUNDS = ("paper", "stone", "night")
PAINT = ("instances", "attributes", "background")


def grouped():
    return spec(v.Contrast, grouping=spec(Grouping), duplicates="ignore")


def tokenize(tokens, count):
    return spec(ops.Tokenize, tokenizer=tokens, captions=count, pick="first", empty="mask")


def get_config(paths: str = "data/cc3m-*.parquet") -> v.Config:
    tokens = pairs.clip_tokenizer()
    data: Any = pairs.train(paths, tokens, batch_size=4096)
    data.source.columns.caption_long = spec(v.Captions)
    data.ops = (*data.ops[:-1], spec(ops.SubCaptions, count=TEXTS), tokenize(tokens, TEXTS))
    return spec(
        v.Experiment,
        data=data,
        model=pairs.towers("mean", width=512, text={}, tokens=True),
        objective=grouped(),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=5e-4,
            schedule=spec(v.Cosine, warmup="2_000 steps"),
            weight_decay=0.5,
        ),
        total="32 epochs",
    )


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=18)
    drawn: Any = small_pairs.train(
        tokens,
        "caption",
        say=[spec(ops.SubCaptions, count=TEXTS)],
        read=tokenize(tokens, TEXTS),
        world=THREE,
    )
    drawn.source.features = ("image", "caption", "caption_long")
    segments = spec(
        v.EvalData,
        source=small_pairs.scenes("test", 256, ("image", *PAINT), **THREE),
        batch_size=256,
        ops=[
            spec(ops.ValueRange, low=-1, high=1),
            spec(Painted, backgrounds=GROUNDS, colours=small_pairs.COLOURS),
        ],
    )
    return small_pairs.experiment(
        drawn,
        small_pairs.transformer(tokens),
        steps=200,
        evaluators={
            "retrieval": small_pairs.retrieval(tokens, caption="caption", world=THREE),
            "segments": spec(
                PatchSegmentation,
                data=segments,
                tokenizer=tokens,
                texts=(
                    *(f"the background is {ground}" for ground in GROUNDS),
                    *(f"a {colour} thing" for colour in small_pairs.COLOURS),
                ),
            ),
        },
        objective=grouped(),
        tokens=True,
    )
