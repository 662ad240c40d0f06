"""ViT-B/16 on Caltech-UCSD birds with local queries and distractors (DCAL).

    python train.py --config=papers/dcal/config.py --workdir=workdirs/dcal
    python train.py --config=dcal:small --workdir=workdirs/dcal_small

Zhu et al., Dual Cross-Attention Learning for Fine-Grained Visual Categorization and Object
Re-Identification, 2022: 550 pixels and crops of 448, Adam with decay 0.05 at 5e-4 per 512 images,
batches of 16, 100 epochs, stochastic depth of 0.1; their best tower has a ResNet-50 as its stem,
this one has patches.

``small`` names subgroups of emoji with a ViT of 4 blocks from random weights; ``small,
distract=False`` without a second image.
"""

import vision as v
from configs.parts import emoji
from configs.parts.birds import birds
from configs.parts.small import adamw_cosine
from papers.dcal.method import DCAL
from vision import spec


def get_config() -> v.Config:
    return birds(
        model=spec(
            v.ViT, variant="B/16", drop_path=0.1, precision=spec(v.Precision, compute="bfloat16")
        ),
        init_from=spec(v.InitFrom, source="timm:vit_base_patch16_224.augreg_in21k", head="new"),
        objective=spec(DCAL),
        optimizer=adamw_cosine(5e-4 * 16 / 512, "5 epochs"),
        batch_size=16,
        total="100 epochs",
        resize=550,
    )


def small(distract: bool = True) -> v.Config:
    tower = spec(v.ViT, width=96, depth=4, heads=4, patch=6, pool="cls", scan=False)
    config = emoji.supervised(tower, learning_rate=1e-3, steps=300)
    config.objective = spec(DCAL, distract=distract, label_smoothing=0.1)
    return config
