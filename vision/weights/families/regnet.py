"""RegNetX and RegNetY."""

from __future__ import annotations

from vision.models.regnet import RegNet
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, conv_norm, layer
from vision.weights.mapping import MapEntry, Names


def timm_regnet(tower: RegNet) -> Names:
    """timm's ``regnetx_*`` and ``regnety_*``."""
    entries: list[MapEntry] = [*conv_norm(("stem_conv", "stem_norm"), ("stem.conv", "stem.bn"))]
    block, before = 0, tower.stem_width
    for stage, (depth, width) in enumerate(zip(tower.depths, tower.widths, strict=True), 1):
        for place in range(depth):
            ours, theirs = f"block{block:02d}", f"s{stage}.b{place + 1}"
            units = [(f"conv{i}", f"norm{i}", f"conv{i}") for i in (1, 2, 3)]
            if place == 0:
                units.append(("downsample_conv", "downsample_norm", "downsample"))
            for conv, norm, name in units:
                entries += conv_norm(
                    (f"{ours}.{conv}", f"{ours}.{norm}"),
                    (f"{theirs}.{name}.conv", f"{theirs}.{name}.bn"),
                )
            if round(before * tower.squeeze):
                entries += layer(f"{ours}.se.reduce", f"{theirs}.se.fc1", POINTWISE)
                entries += layer(f"{ours}.se.expand", f"{theirs}.se.fc2", POINTWISE)
            block, before = block + 1, width
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "head.fc")
