"""XCiT."""

from __future__ import annotations

import dataclasses

from vision.models.xcit import Xcit
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, batch_norm, conv_norm, layer, norm
from vision.weights.mapping import CONV, MapEntry, Names, qkv, reshaped

_PER_HEAD = reshaped("a number per head", (-1,), (-1, 1, 1))


def timm_xcit(tower: Xcit) -> Names:
    """timm's ``xcit_*``."""
    entries: list[MapEntry] = [MapEntry("params.cls_token", ("cls_token",))]
    for i in range(4 if tower.patch == 16 else 3):
        ours, theirs = f"patch_embed{i + 1}", f"patch_embed.proj.{2 * i}"
        entries += conv_norm((ours, f"{ours}_norm"), (f"{theirs}.0", f"{theirs}.1"))
    entries += layer("positions", "pos_embed.token_projection", POINTWISE)
    for i in range(tower.depth):
        ours, theirs = f"block{i:02d}", f"blocks.{i}"
        for number in (1, 2, 3):
            entries += norm(f"{ours}.norm{number}", f"{theirs}.norm{number}")
            gamma = (f"{theirs}.gamma{number}",)
            entries.append(MapEntry(f"params.{ours}.ls{number}.gamma", gamma))
        entries += [
            dataclasses.replace(entry, form=qkv(tower.heads))
            for entry in layer(f"{ours}.attn.qkv", f"{theirs}.attn.qkv")
        ]
        scale = (f"{theirs}.attn.temperature",)
        entries.append(MapEntry(f"params.{ours}.attn.scale", scale, _PER_HEAD))
        entries += layer(f"{ours}.attn.proj", f"{theirs}.attn.proj")
        for number in (1, 2):
            name = f"conv{number}"
            entries += layer(f"{ours}.local_{name}", f"{theirs}.local_mp.{name}", CONV)
        entries += batch_norm(f"{ours}.local_norm", f"{theirs}.local_mp.bn")
        entries += [*layer(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")]
        entries += [*layer(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")]
    for i in range(tower.class_depth):
        ours, theirs = f"block{tower.depth + i:02d}", f"cls_attn_blocks.{i}"
        for number in (1, 2):
            entries += norm(f"{ours}.norm{number}", f"{theirs}.norm{number}")
            gamma = (f"{theirs}.gamma{number}",)
            entries.append(MapEntry(f"params.{ours}.ls{number}.gamma", gamma))
        for name in ("q", "k", "v", "proj"):
            entries += layer(f"{ours}.{name}", f"{theirs}.attn.{name}")
        for name in ("fc1", "fc2"):
            entries += layer(f"{ours}.mlp.{name}", f"{theirs}.mlp.{name}")
    entries += norm("norm", "norm")
    return Names(tuple(entries), dict(COUNTERS)) + head(tower.num_classes, "head")
