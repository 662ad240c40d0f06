"""A ViT of six blocks that names the subgroup of real drawings; otherwise as `emoji_cnn`.

python train.py --config=configs/emoji_vit.py --workdir=workdirs/emoji_vit
python evaluate.py --workdir=workdirs/emoji_vit
"""

import vision as v
from configs.parts import emoji
from vision import spec


def get_config() -> v.Config:
    return emoji.supervised(
        spec(v.ViT, width=96, depth=6, heads=4, patch=8, pool="mean", posemb="learned"),
        learning_rate=2e-3,
        steps=700,
    )
