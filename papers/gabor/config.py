"""A ResNet-50 on Caltech-UCSD birds beside textures of four regions (Gabor filters).

    python train.py --config=papers/gabor/config.py --workdir=workdirs/gabor
    python train.py --config=gabor:small --workdir=workdirs/gabor_small

Zhu et al., Learning Gabor Texture Features for Fine-Grained Recognition, 2023. Their recipe is not
public: SGD with momentum, a cosine from 0.01 for 100 epochs of batches of 32 at 448 pixels from
weights of ImageNet are ours.

``small`` tunes the zoo's classifier of emoji for 150 steps; ``small,rival=plain`` without textures.
"""

from typing import Literal

import vision as v
from configs.parts import emoji
from configs.parts.birds import birds, sgd_cosine
from papers.gabor.method import GaborTexture
from vision import spec


def get_config() -> v.Config:
    return birds(
        model=spec(v.ResNet, depth=50, precision=spec(v.Precision, compute="bfloat16")),
        init_from=spec(v.InitFrom, source="timm:resnet50.a1_in1k", head="new"),
        objective=spec(GaborTexture, size=64, filter_side=15, label_smoothing=0.1),
        optimizer=sgd_cosine(0.01, "2 epochs", weight_decay=1e-4),
        batch_size=32,
        total="100 epochs",
    )


def small(rival: Literal["", "plain"] = "") -> v.Config:
    tower = spec(v.ResNet, depth=10, width_multiplier=0.375, zero_init_residual=False)
    config = emoji.supervised(tower, learning_rate=5e-4, steps=150)
    config.init_from = spec(v.InitFrom, source="zoo:emoji_cnn")
    if not rival:
        config.objective = spec(
            GaborTexture, sides=(0.5,), keep=2, size=24, hidden=64, label_smoothing=0.1
        )
    return config
