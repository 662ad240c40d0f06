"""Swin transformers V2."""

from __future__ import annotations

import dataclasses

from vision.models.swin_v2 import SwinV2
from vision.weights.families.heads import head
from vision.weights.families.units import layer, norm
from vision.weights.mapping import CONV, MapEntry, Names, qkv, reshaped

_PER_HEAD = reshaped("a number per head", (-1,), (-1, 1, 1))


def timm_swin_v2(tower: SwinV2) -> Names:
    """timm's ``swinv2_*``; ``swinv2_cr_*`` is another architecture."""
    entries: list[MapEntry] = [
        *layer("patch_embed", "patch_embed.proj", CONV),
        *norm("stem_norm", "patch_embed.norm"),
    ]
    i = 0
    for number, stage in enumerate(tower.resolved()):
        if number > 0:
            ours, theirs = f"downsample{number}", f"layers.{number}.downsample"
            entries += layer(f"{ours}_reduction", f"{theirs}.reduction", bias=False)
            entries += norm(f"{ours}_norm", f"{theirs}.norm")
        for place in range(stage.depth):
            ours, theirs = f"block{i:02d}", f"layers.{number}.blocks.{place}"
            entries += [
                dataclasses.replace(entry, form=qkv(stage.heads))
                for entry in layer(f"{ours}.attn.qkv", f"{theirs}.attn.qkv", bias=False)
            ]
            for name in ("q_bias", "v_bias"):
                entries.append(MapEntry(f"params.{ours}.attn.{name}", (f"{theirs}.attn.{name}",)))
            scale = (f"{theirs}.attn.logit_scale",)
            entries.append(MapEntry(f"params.{ours}.attn.log_scale", scale, _PER_HEAD))
            entries += layer(f"{ours}.attn.bias_fc1", f"{theirs}.attn.cpb_mlp.0")
            entries += layer(f"{ours}.attn.bias_fc2", f"{theirs}.attn.cpb_mlp.2", bias=False)
            entries += layer(f"{ours}.attn.proj", f"{theirs}.attn.proj")
            entries += norm(f"{ours}.norm1", f"{theirs}.norm1")
            entries += norm(f"{ours}.norm2", f"{theirs}.norm2")
            entries += layer(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")
            entries += layer(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")
            i += 1
    entries += norm("norm", "norm")
    # Older files hold what follows from the sizes.
    derived = "follows from the sizes of windows and image"
    ignored = {
        r".*\.attn_mask": derived,
        r".*\.relative_position_index": derived,
        r".*\.relative_coords_table": derived,
    }
    return Names(tuple(entries), ignored) + head(tower.num_classes, "head.fc")
