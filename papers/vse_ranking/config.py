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

from configs.parts import pairs, small_pairs
from vision.blocks.contrast import Ranking
from vision.config.specs import Config, spec
from vision.models.bag_of_words import BagOfWords
from vision.models.bit import BiT
from vision.models.dual import Dual
from vision.objectives.contrast import Contrast
from vision.run.experiment import Experiment
from vision.train.optim import DECAY_KERNELS, Optimizer, ParameterRule, adamw
from vision.weights.init_from import InitFrom


def get_config(paths: str = "data/flickr30k-train.parquet") -> Config:
    ranking = spec(Contrast, criterion=spec(Ranking), duplicates="ignore")
    read = pairs.clip_tokenizer()
    frozen = spec(ParameterRule, pattern="model/image/", learning_rate=0)
    return spec(
        Experiment,
        data=pairs.train(paths, read, batch_size=128),
        model=spec(
            Dual,
            image=spec(BiT, depth=50, num_classes=0),
            text=spec(BagOfWords, vocab_size=49_408, width=1024),
            width=1024,
        ),
        init_from=spec(InitFrom, source="timm:timm/resnetv2_50x1_bit.goog_in21k", into="image"),
        objective=ranking,
        optimizer=spec(
            Optimizer,
            method=spec(adamw),
            learning_rate=2e-4,
            rules=[frozen, *(spec(ParameterRule, **vars(rule)) for rule in DECAY_KERNELS)],
        ),
        total="30 epochs",
    )


def small() -> Config:
    ranking = spec(Contrast, criterion=spec(Ranking), duplicates="ignore")
    tokens: Any = small_pairs.tokenizer()
    sizes = {"width": small_pairs.WIDTH, "hidden": 96}
    return small_pairs.experiment(
        small_pairs.train(tokens),
        spec(BagOfWords, vocab_size=4 + len(tokens.words), **sizes),
        steps=200,
        evaluators={"retrieval": small_pairs.retrieval(tokens, examples=512)},
        objective=ranking,
    )
