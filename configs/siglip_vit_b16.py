"""SigLIP ViT-B/16: every pair of an image and a text is a yes or no of its own.

    python train.py --config=configs/siglip_vit_b16.py:'/data/pairs/train-*.parquet' --workdir=...

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023: both towers pooled by attention,
text not causal, learned temperature and bias (in the loss). Data as in `clip_vit_b16.py`, and so is
the tokenizer, where the paper has a SentencePiece model of 32,000 ids. We have not trained it at
full length.
"""

from configs.parts import pairs
from vision.blocks.contrast import Sigmoid
from vision.core.config import spec
from vision.core.experiment import Experiment
from vision.core.optim import Optimizer, adamw
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
        data=pairs.train(paths, pairs.clip_tokenizer(length=64), batch_size=32_768),
        model=spec(
            Dual,
            image=spec(ViT, variant="B/16", pool="map", precision=half),
            text=spec(
                TextTransformer,
                vocab_size=pairs.CLIP_VOCABULARY,
                width=768,
                heads=12,
                context=64,
                causal=False,
                pool="map",
                initialisation="xavier",
                precision=half,
            ),
            width=768,
        ),
        objective=spec(Contrast, criterion=spec(Sigmoid)),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.95),
            learning_rate=1e-3,
            schedule=spec(Cosine, warmup="10_000 steps"),
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        total="9e9 examples",
    )
