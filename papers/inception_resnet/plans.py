"""The plans of Inception-ResNet-v1 (figures 10 to 14 of the paper) and v2 (slim's)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from vision.models import inception_resnet as v2
from vision.models.inception_layers import Branches, Conv

Variant = Literal["v1", "v2"]
SMALL_STEM: tuple[Branches, ...] = (((Conv(256, (3, 3)),),),)


class Network(NamedTuple):
    """Stem, residual blocks and reductions in between, depths, and the last convolution if any."""

    stem: tuple[Branches, ...]
    blocks: tuple[Branches, Branches, Branches]
    reductions: tuple[Branches, Branches]
    depths: tuple[int, int, int]
    head: Conv | None = None


# Figures 10 to 14, and table 1 for the first reduction.
V1 = Network(
    stem=(
        ((Conv(32, (3, 3), 2, padded=False),),),
        ((Conv(32, (3, 3), padded=False),),),
        ((Conv(64, (3, 3)),),),
        (("max",),),
        ((Conv(80),),),
        ((Conv(192, (3, 3), padded=False),),),
        ((Conv(256, (3, 3), 2, padded=False),),),
    ),
    blocks=(
        ((Conv(32),), (Conv(32), Conv(32, (3, 3))), (Conv(32), *(Conv(32, (3, 3)),) * 2)),
        ((Conv(128),), (Conv(128), Conv(128, (1, 7)), Conv(128, (7, 1)))),
        ((Conv(192),), (Conv(192), Conv(192, (1, 3)), Conv(192, (3, 1)))),
    ),
    reductions=(
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
    ),
    depths=(5, 10, 5),
)
V2 = Network(
    v2.STEM,
    (v2.BLOCK_A, v2.BLOCK_B, v2.BLOCK_C),
    (v2.REDUCTION_A, v2.REDUCTION_B),
    (10, 20, 10),
    v2.HEAD,
)
NETWORKS: Mapping[Variant, Network] = {"v1": V1, "v2": V2}
