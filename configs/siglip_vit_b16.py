"""SigLIP ViT-B/16: every pair of an image and a text is a yes or no of its own.

    python train.py --config=configs/siglip_vit_b16.py:'/data/pairs/train-*.parquet' --workdir=...

Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023: both towers pooled by attention,
text not causal, learned temperature and bias (in the loss). Data as in `clip_vit_b16.py`, and so is
the tokenizer, where the paper has a SentencePiece model of 32,000 ids. We have not trained it at
full length.
"""

import vision as v
from configs.parts import pairs
from vision import spec


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    text = {
        "width": 768,
        "heads": 12,
        "context": 64,
        "causal": False,
        "pool": "map",
        "initialisation": "xavier",
    }
    return spec(
        v.Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(length=64), batch_size=32_768),
        model=pairs.towers("map", width=768, text=text),
        objective=spec(v.Contrast, criterion=spec(v.Sigmoid)),
        optimizer=pairs.long_warmup(weight_decay=0.1),
        total="9e9 examples",
    )
