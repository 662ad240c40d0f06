"""Swin transformers."""

from __future__ import annotations

import dataclasses

from vision.models.swin import Swin
from vision.weights.families.heads import head
from vision.weights.families.units import layer, norm
from vision.weights.fit_biases import fit_square_table
from vision.weights.mapping import CONV, LINEAR, MapEntry, Names, qkv


def timm_swin(tower: Swin) -> Names:
    """timm's ``swin_*``, of the first version.

    A bias table of another window than ``trained_windows`` says, or ``windows``, is resampled as
    timm does: see ``fit_biases``.
    """
    entries: list[MapEntry] = [
        *layer("patch_embed", "patch_embed.proj", CONV),
        *norm("stem_norm", "patch_embed.norm"),
    ]
    i = 0
    for number, stage in enumerate(tower.resolved()):
        if number > 0:
            ours, theirs = f"downsample{number}", f"layers.{number}.downsample"
            entries += norm(f"{ours}_norm", f"{theirs}.norm")
            entries += layer(f"{ours}_reduction", f"{theirs}.reduction", LINEAR, bias=False)
        for place in range(stage.depth):
            ours, theirs = f"block{i:02d}", f"layers.{number}.blocks.{place}"
            entries += norm(f"{ours}.norm1", f"{theirs}.norm1")
            entries += [
                dataclasses.replace(entry, form=qkv(stage.heads))
                for entry in layer(f"{ours}.attn.qkv", f"{theirs}.attn.qkv")
            ]
            table = f"{theirs}.attn.relative_position_bias_table"
            entries.append(
                MapEntry(f"params.{ours}.attn.bias_table", (table,), fit=fit_square_table)
            )
            entries += layer(f"{ours}.attn.proj", f"{theirs}.attn.proj")
            entries += norm(f"{ours}.norm2", f"{theirs}.norm2")
            entries += layer(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")
            entries += layer(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")
            i += 1
    entries += norm("norm", "norm")
    # Older files hold what follows from the sizes.
    derived = "follows from the sizes of windows and image"
    ignored = {r".*\.attn_mask": derived, r".*\.relative_position_index": derived}
    return Names(tuple(entries), ignored) + head(tower.num_classes, "head.fc")
