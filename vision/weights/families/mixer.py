"""MLP-Mixer."""

from __future__ import annotations

import dataclasses

from vision.models.mixer import Mixer
from vision.weights.families.heads import head
from vision.weights.families.units import layer, norm
from vision.weights.mapping import CONV, MapEntry, Names


def timm_mixer(tower: Mixer) -> Names:
    """timm's ``mixer_*``; its ResMLP and gMLP are other architectures."""
    entries: list[MapEntry] = [*layer("patch_embed", "stem.proj", CONV)]
    for i in range(tower.depth):
        ours, place = ("blocks", i) if tower.scan else (f"block{i:02d}", None)
        theirs = f"blocks.{i}"
        block = [
            *norm(f"{ours}.norm1", f"{theirs}.norm1"),
            *norm(f"{ours}.norm2", f"{theirs}.norm2"),
        ]
        for name, other in (("mix", "mlp_tokens"), ("mlp", "mlp_channels")):
            for fc in ("fc1", "fc2"):
                block += layer(f"{ours}.{name}.{fc}", f"{theirs}.{other}.{fc}")
        entries += [dataclasses.replace(entry, layer=place) for entry in block]
    entries += norm("norm", "norm")
    return Names(tuple(entries)) + head(tower.num_classes, "head")
