"""ResNet v2 with BatchNorm."""

from __future__ import annotations

from vision.models.resnet import BASIC, STAGES
from vision.models.resnet_v2 import ResNetV2
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, batch_norm, conv_norm, layer
from vision.weights.mapping import CONV, MapEntry, Names


def timm_resnet_v2(tower: ResNetV2) -> Names:
    """timm's ``resnetv2_18`` to ``resnetv2_152``, with ``d`` and without."""
    entries: list[MapEntry] = []
    if tower.stem == "deep":
        for i in (1, 2):
            names = (f"stem.conv{i}", f"stem.norm{i}")
            entries += conv_norm((f"stem_conv{i}", f"stem_norm{i}"), names)
        entries += layer("stem_conv3", "stem.conv3", CONV, bias=False)
    else:
        entries += layer("stem_conv", "stem.conv", CONV, bias=False)
    basic = tower.depth in BASIC
    block = 0
    for stage, count in enumerate(STAGES[tower.depth]):
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"stages.{stage}.blocks.{place}"
            for i in range(1, 3 if basic else 4):
                entries += batch_norm(f"{ours}.norm{i}", f"{theirs}.norm{i}")
                entries += layer(f"{ours}.conv{i}", f"{theirs}.conv{i}", CONV, bias=False)
            if place == 0 and (stage > 0 or not basic):
                names = (f"{ours}.downsample_conv", f"{theirs}.downsample.conv")
                entries += layer(*names, CONV, bias=False)
            block += 1
    entries += batch_norm("norm", "norm")
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "head.fc", POINTWISE)
