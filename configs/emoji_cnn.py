"""A small ResNet that names the subgroup of real drawings on any ground; two CPU cores suffice.

    python train.py --config=configs/emoji_cnn.py --workdir=workdirs/emoji_cnn
    python evaluate.py --workdir=workdirs/emoji_cnn
    python -m vision.report.dataset --config=configs/emoji_cnn.py:shown --out=emoji.html

It learns from two houses and four fifths of the emoji: `new_house` asks about the same emoji as the
third house draws them, `unseen` about emoji that it never saw, and `neighbours` how often the
features of a drawing by the third house are nearest to those of the same emoji by the first, among
1,250 emoji.
"""

import vision as v
from configs.parts import emoji
from vision import spec


def shown() -> v.Config:
    return emoji.shown()


def get_config() -> v.Config:
    return emoji.supervised(
        spec(v.ResNet, depth=10, width_multiplier=0.375, zero_init_residual=False),
        learning_rate=4e-3,
        steps=700,
    )
