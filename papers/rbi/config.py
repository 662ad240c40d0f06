"""A ConvNeXt-T on Caltech-UCSD birds whose images attend to each other (RBI).

    python train.py --config=papers/rbi/config.py --workdir=workdirs/rbi
    python train.py --config=rbi:small --workdir=workdirs/rbi_small

Le et al., Enhancing Fine-grained Image Classification through Attentive Batch Training, 2024,
refine ConvNeXt, Swin and others so. Their recipe is not public: 50 epochs of batches of 64 at 448
pixels from weights of ImageNet are ours. ``direct=0.5`` also trains the tower's own head, whose
answer does not depend on the batch.

``small`` tunes the zoo's classifier of emoji for 150 steps; ``small,rival=plain`` without the
attention.
"""

from typing import Literal

import vision as v
from configs.parts import emoji
from configs.parts.birds import birds
from configs.parts.small import adamw_cosine
from papers.rbi.method import RelationshipBatch
from vision import spec


def get_config() -> v.Config:
    return birds(
        model=spec(v.ConvNeXt, variant="tiny", drop_path=0.1),
        init_from=spec(v.InitFrom, source="timm:convnext_tiny.fb_in22k_ft_in1k", head="new"),
        objective=spec(RelationshipBatch, direct=0.5, label_smoothing=0.1),
        optimizer=adamw_cosine(1e-4, "5 epochs"),
        batch_size=64,
        total="50 epochs",
    )


def small(rival: Literal["", "plain"] = "") -> v.Config:
    tower = spec(v.ResNet, depth=10, width_multiplier=0.375, zero_init_residual=False)
    config = emoji.supervised(tower, learning_rate=5e-4, steps=150)
    config.init_from = spec(v.InitFrom, source="zoo:emoji_cnn")
    if not rival:
        config.objective = spec(RelationshipBatch, label_smoothing=0.1)
    return config
