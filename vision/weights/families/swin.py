"""Swin transformers."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from vision.models.posemb import resample_posemb
from vision.models.swin import Swin
from vision.weights.families.heads import head
from vision.weights.families.units import layer, norm
from vision.weights.mapping import CONV, LINEAR, MapEntry, Names, qkv


def timm_swin(tower: Swin) -> Names:
    """timm's ``swin_*``, of the first version.

    A bias table of another window is resampled (bicubic, antialiased).
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
            entries.append(MapEntry(f"params.{ours}.attn.bias_table", (table,), fit=_fit_table))
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


def _fit_table(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bias table of one square window for another."""
    old, new = (math.isqrt(rows) for rows in (table.shape[0], shape[0]))
    if old * old != table.shape[0] or table.shape[1] != shape[1]:
        raise ValueError(f"a bias table of shape {table.shape} cannot become {shape}")
    return np.asarray(resample_posemb(jnp.asarray(table), (old, old), (new, new))).reshape(shape)
