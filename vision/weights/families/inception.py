"""Inception-v4 and Inception-ResNet-v2."""

from __future__ import annotations

from vision.models import inception, inception_resnet
from vision.models.inception import InceptionV4
from vision.models.inception_layers import Branches, convolutions
from vision.models.inception_resnet import InceptionResNetV2
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, conv_norm, layer
from vision.weights.mapping import CONV, MapEntry, Names


def timm_inception_v4(tower: InceptionV4) -> Names:
    """timm's ``inception_v4``."""
    entries: list[MapEntry] = []
    stem = [f"stem{i}" for i in range(len(inception.STEM))]
    blocks = [f"block{i:02d}" for i in range(len(tower.blocks()))]
    modules = zip((*stem, *blocks), (*inception.STEM, *tower.blocks()), strict=True)
    for place, (ours, branches) in enumerate(modules):
        entries += _mixed(ours, f"features.{place}", branches)
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "last_linear")


def timm_inception_resnet_v2(tower: InceptionResNetV2) -> Names:
    """timm's ``inception_resnet_v2``."""
    entries: list[MapEntry] = []
    # Empty where ours pools and theirs has a layer without parameters.
    stem = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "", "conv2d_3b", "conv2d_4a", "", "mixed_5b")
    for i, (theirs, branches) in enumerate(zip(stem, inception_resnet.STEM, strict=True)):
        entries += _mixed(f"stem{i}", theirs, branches)
    a, b, c = tower.depths
    blocks = (
        *(f"repeat.{i}" for i in range(a)),
        "mixed_6a",
        *(f"repeat_1.{i}" for i in range(b)),
        "mixed_7a",
        *(f"repeat_2.{i}" for i in range(c - 1)),
        "block8",
    )
    for i, (theirs, plan) in enumerate(zip(blocks, tower.blocks(), strict=True)):
        ours = f"block{i:02d}"
        entries += _mixed(ours, theirs, plan.branches)
        if plan.residual_scale is not None:
            entries += layer(f"{ours}.project", f"{theirs}.conv2d", CONV)
    entries += conv_norm(("last.conv", "last.norm"), ("conv2d_7b.conv", "conv2d_7b.bn"))
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "classif")


def _mixed(ours: str, theirs: str, branches: Branches) -> list[MapEntry]:
    """Convolutions of one module of branches."""
    units = convolutions(branches)
    entries: list[MapEntry] = []
    for i, j, fork in units:
        forked = any(other[0] == i and other[2] for other in units)
        if len(branches) == 1:
            name = theirs
        elif len(units) == 1:
            # Beside it there is pooling only.
            name = f"{theirs}.conv"
        elif forked:
            name = f"{theirs}.branch{i}_{j}{fork}"
        elif len(branches[i]) == 1:
            name = f"{theirs}.branch{i}"
        else:
            name = f"{theirs}.branch{i}.{j}"
        unit = f"{ours}.branch{i}_{j}{fork}"
        entries += conv_norm((f"{unit}.conv", f"{unit}.norm"), (f"{name}.conv", f"{name}.bn"))
    return entries
