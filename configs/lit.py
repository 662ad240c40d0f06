"""LiT: a text tower learns to read a trained image tower, which is locked.

    python train.py --config=configs/lit.py:'/data/pairs/train-*.parquet' --workdir=...

Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022. One rule of the optimizer
locks the tower: no gradient, no optimizer state, no change. The image has no projection, so the
text answers in the tower's own space. Start it from trained image weights: from random ones it
learns little.
"""

from configs.parts import pairs
from vision.core.config import spec
from vision.core.experiment import Experiment
from vision.core.optim import DECAY_KERNELS, Optimizer, Rule, adamw
from vision.core.precision import Precision
from vision.core.schedule import Cosine
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast


def get_config(paths: str = "pairs/*.parquet"):
    half = spec(Precision, compute="bfloat16")
    return spec(
        Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(), batch_size=16_384),
        model=spec(
            Dual,
            image=spec(ViT, variant="B/16", pool="cls", precision=half),
            text=spec(
                TextTransformer,
                vocab_size=pairs.CLIP_VOCABULARY,
                width=768,
                heads=12,
                precision=half,
            ),
            width=768,
            image_projection=False,
        ),
        objective=spec(Contrast),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.95),
            learning_rate=1e-3,
            schedule=spec(Cosine, warmup="10_000 steps"),
            weight_decay=1e-4,
            clip_norm=1.0,
            rules=[
                spec(Rule, pattern="model/image/", learning_rate=0),
                *(spec(Rule, **vars(rule)) for rule in DECAY_KERNELS),
            ],
        ),
        total="55_000 steps",
    )
