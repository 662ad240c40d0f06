"""ViT-B/16 on Caltech-UCSD birds that looks again at what its class was told from (GLSim).

    python train.py --config=papers/glsim/config.py --workdir=workdirs/glsim
    python train.py --config=glsim:small --workdir=workdirs/glsim_small

Rios et al., Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision
Transformers, 2024: a tower from ImageNet-21k, SGD with momentum, batches of 8, 50 epochs, a cosine
from 0.01 (they choose between 0.003 and 0.01 for every set), 8 patches at 224 pixels.

``small`` names subgroups of emoji with a ViT of 6 blocks from random weights; ``small,
choose=random`` crops around random patches, ``choose=none`` not at all.
"""

from typing import Literal

import vision as v
from configs.parts import emoji
from configs.parts.birds import birds, sgd_cosine
from papers.glsim.method import GLSim
from vision import spec

Choose = Literal["similarity", "random", "none"]


def get_config(choose: Choose = "similarity") -> v.Config:
    return birds(
        model=spec(v.ViT, variant="B/16", precision=spec(v.Precision, compute="bfloat16")),
        init_from=spec(v.InitFrom, source="timm:vit_base_patch16_224.augreg_in21k", head="new"),
        objective=spec(GLSim, choose=choose),
        optimizer=sgd_cosine(0.01, "500 steps"),
        batch_size=8,
        total="50 epochs",
        size=224,
        resize=300,
    )


def small(choose: Choose = "similarity") -> v.Config:
    tower = spec(v.ViT, width=96, depth=6, heads=4, patch=6, pool="cls")
    config = emoji.supervised(tower, learning_rate=1e-3, steps=300)
    config.objective = spec(GLSim, choose=choose, count=6, label_smoothing=0.1)
    return config
