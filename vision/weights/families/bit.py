"""BiT."""

from __future__ import annotations

from vision.models.bit import BiT
from vision.models.resnet import STAGES
from vision.weights.families.heads import head
from vision.weights.families.units import POINTWISE, layer, norm
from vision.weights.mapping import CONV, MapEntry, Names


def timm_bit(tower: BiT) -> Names:
    """timm's ``resnetv2_*_bit``, with ``width_multiplier`` its factor behind the x."""
    entries: list[MapEntry] = [*layer("stem_conv", "stem.conv", CONV, bias=False)]
    block = 0
    for stage, count in enumerate(STAGES[tower.depth]):
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"stages.{stage}.blocks.{place}"
            for i in (1, 2, 3):
                entries += norm(f"{ours}.norm{i}", f"{theirs}.norm{i}")
                entries += layer(f"{ours}.conv{i}", f"{theirs}.conv{i}", CONV, bias=False)
            if place == 0:
                names = (f"{ours}.downsample_conv", f"{theirs}.downsample.conv")
                entries += layer(*names, CONV, bias=False)
            block += 1
    entries += norm("norm", "norm")
    return Names(tuple(entries)) + head(tower.num_classes, "head.fc", POINTWISE)
