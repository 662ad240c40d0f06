"""The plans of Inception-ResNet-v1: figures 10 to 14 of the paper, table 1 for a reduction."""

from __future__ import annotations

from vision.models.inception_layers import Branches, Conv

SMALL_STEM: tuple[Branches, ...] = (((Conv(256, (3, 3)),),),)
STEM: tuple[Branches, ...] = (
    ((Conv(32, (3, 3), 2, padded=False),),),
    ((Conv(32, (3, 3), padded=False),),),
    ((Conv(64, (3, 3)),),),
    (("max",),),
    ((Conv(80),),),
    ((Conv(192, (3, 3), padded=False),),),
    ((Conv(256, (3, 3), 2, padded=False),),),
)
BLOCKS: tuple[Branches, Branches, Branches] = (
    ((Conv(32),), (Conv(32), Conv(32, (3, 3))), (Conv(32), *(Conv(32, (3, 3)),) * 2)),
    ((Conv(128),), (Conv(128), Conv(128, (1, 7)), Conv(128, (7, 1)))),
    ((Conv(192),), (Conv(192), Conv(192, (1, 3)), Conv(192, (3, 1)))),
)
REDUCTIONS: tuple[Branches, Branches] = (
    (
        (Conv(384, (3, 3), 2, padded=False),),
        (Conv(192), Conv(192, (3, 3)), Conv(256, (3, 3), 2, padded=False)),
        ("max",),
    ),
    (
        (Conv(256), Conv(384, (3, 3), 2, padded=False)),
        (Conv(256), Conv(256, (3, 3), 2, padded=False)),
        (Conv(256), Conv(256, (3, 3)), Conv(256, (3, 3), 2, padded=False)),
        ("max",),
    ),
)
