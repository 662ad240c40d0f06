"""MaxViT."""

from __future__ import annotations

import dataclasses

from vision.models.maxvit import MaxVit
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, batch_norm, conv_norm, layer, norm
from vision.weights.fit_biases import fit_biases_geometrically
from vision.weights.mapping import CONV, Form, MapEntry, Names, qkv

# Theirs counts from query to key, ours from key to query.
_TABLE = Form(
    "biases (heads, offsets of rows, offsets of columns)",
    lambda tensors: tensors[0].transpose(1, 2, 0)[::-1, ::-1],
    lambda array: (array[::-1, ::-1].transpose(2, 0, 1),),
)


def timm_maxvit(tower: MaxVit) -> Names:
    """timm's ``maxvit_*_tf_*``; its ``maxvit_*_rw_*``, CoAtNets and MaxxViTs are others."""
    entries: list[MapEntry] = [
        *layer("stem_conv1", "stem.conv1", CONV),
        *batch_norm("stem_norm", "stem.norm1"),
        *layer("stem_conv2", "stem.conv2", CONV),
    ]
    i, before = 0, tower.stem_width
    for stage, (width, depth) in enumerate(zip(tower.widths, tower.depths, strict=True)):
        for place in range(depth):
            ours, theirs = f"block{i:02d}", f"stages.{stage}.blocks.{place}"
            entries += _convolutions(ours, f"{theirs}.conv")
            if place == 0 and width != before:
                entries += layer(f"{ours}.shortcut", f"{theirs}.conv.shortcut.expand", POINTWISE)
            for name, other in (("window", "attn_block"), ("grid", "attn_grid")):
                heads = width // tower.head_width
                entries += _attention(f"{ours}.{name}", f"{theirs}.{other}", heads)
            i += 1
        before = width
    entries += norm("fc_norm", "head.norm")
    entries += layer("pre_logits", "head.pre_logits.fc")
    return Names(tuple(entries), dict(COUNTERS)) + head(tower.num_classes, "head.fc")


def _convolutions(ours: str, theirs: str) -> list[MapEntry]:
    first, second = (f"{ours}.conv1", f"{ours}.conv1_norm"), (f"{ours}.conv2", f"{ours}.conv2_norm")
    return [
        *batch_norm(f"{ours}.pre_norm", f"{theirs}.pre_norm"),
        *conv_norm(first, (f"{theirs}.conv1_1x1", f"{theirs}.norm1")),
        *conv_norm(second, (f"{theirs}.conv2_kxk", f"{theirs}.norm2")),
        *layer(f"{ours}.se_fc1", f"{theirs}.se.fc1", POINTWISE),
        *layer(f"{ours}.se_fc2", f"{theirs}.se.fc2", POINTWISE),
        *layer(f"{ours}.conv3", f"{theirs}.conv3_1x1", CONV),
    ]


def _attention(ours: str, theirs: str, heads: int) -> list[MapEntry]:
    table = (f"{theirs}.attn.rel_pos.relative_position_bias_table",)
    joined = layer(f"{ours}.attn.qkv", f"{theirs}.attn.qkv")
    return [
        *norm(f"{ours}.norm1", f"{theirs}.norm1"),
        *(dataclasses.replace(entry, form=qkv(heads)) for entry in joined),
        MapEntry(f"params.{ours}.attn.bias_table", table, _TABLE, fit=fit_biases_geometrically),
        *layer(f"{ours}.attn.proj", f"{theirs}.attn.proj"),
        *norm(f"{ours}.norm2", f"{theirs}.norm2"),
        *layer(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1"),
        *layer(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2"),
    ]
