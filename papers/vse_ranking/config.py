"""Ranking loss over a frozen CNN and a bag of words, on Flickr30k.

    python train.py --config=papers/vse_ranking/config.py --workdir=...
    python train.py --config=papers/vse_ranking/config.py:small --workdir=...

Deep Learning Applied to Image and Text Matching, 2016: one rule of the optimizer locks the CNN, and
only the text network and the projections learn, each way against wrong texts and wrong images.
`data/flickr30k-train.parquet` has the columns `image` and `caption`, a list of five, of which every
epoch takes one. Margin, widths and learning rate are ours, the paper's are not confirmed; so are
the CNN, one without BatchNorm so that frozen is frozen, and the bag: it counts CLIP's byte pairs.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from vision import spec


def get_config(paths: str = "data/flickr30k-train.parquet") -> v.Config:
    ranking = spec(v.Contrast, criterion=spec(v.Ranking), duplicates="ignore")
    read = pairs.clip_tokenizer()
    frozen = spec(v.ParameterRule, pattern="model/image/", learning_rate=0)
    return spec(
        v.Experiment,
        data=pairs.train(paths, read, batch_size=128),
        model=spec(
            v.Dual,
            image=spec(v.BiT, depth=50, num_classes=0),
            text=spec(v.BagOfWords, vocab_size=49_408, width=1024),
            width=1024,
        ),
        init_from=spec(v.InitFrom, source="timm:timm/resnetv2_50x1_bit.goog_in21k", into="image"),
        objective=ranking,
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=2e-4,
            rules=[frozen, *v.DECAY_KERNELS],
        ),
        total="30 epochs",
    )


def small() -> v.Config:
    ranking = spec(v.Contrast, criterion=spec(v.Ranking), duplicates="ignore")
    tokens: Any = small_pairs.tokenizer()
    sizes = {"width": small_pairs.WIDTH, "hidden": 96}
    return small_pairs.experiment(
        small_pairs.train(tokens),
        spec(v.BagOfWords, vocab_size=4 + len(tokens.words), **sizes),
        steps=200,
        evaluators={"retrieval": small_pairs.retrieval(tokens, examples=512)},
        objective=ranking,
    )
