"""MobileNetV4."""

from __future__ import annotations

from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.mobilenet_v4_plan import BlockPlan
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, batch_norm, conv_norm, layer
from vision.weights.mapping import CONV, MapEntry, Names


def timm_mobilenet_v4(tower: MobileNetV4) -> Names:
    """timm's ``mobilenetv4_*``; its ``mobilenetv4_conv_blur_*`` are others."""
    plan = tower.resolved()
    entries: list[MapEntry] = [*conv_norm(("stem_conv", "stem_norm"), ("conv_stem", "bn1"))]
    stage, place = 0, 0
    for i, block in enumerate(plan.blocks):
        place = place + 1 if block.stage == stage and i > 0 else 0
        stage = block.stage
        ours, theirs = f"block{i:02d}", f"blocks.{stage}.{place}"
        if block.kind == "attention":
            entries += _attention(ours, theirs, block)
        else:
            for unit, convolution, norm in _units(block):
                entries += conv_norm(
                    (f"{ours}.{unit}_conv", f"{ours}.{unit}_norm"),
                    (f"{theirs}.{convolution}", f"{theirs}.{norm}"),
                )
        if plan.layer_scale and block.kind in ("universal", "attention"):
            gamma = f"{theirs}.layer_scale.gamma"
            entries.append(MapEntry(f"params.{ours}.layer_scale.gamma", (gamma,)))
    entries += conv_norm(("head_conv", "head_norm"), ("conv_head", "norm_head"))
    return Names(tuple(entries), dict(COUNTERS)) + head(tower.num_classes, "classifier")


def _units(block: BlockPlan) -> tuple[tuple[str, str, str], ...]:
    """Our layer, and their convolution and norm."""
    if block.kind == "plain":
        return (("plain", "conv", "bn1"),)
    if block.kind == "fused":
        return ("expand", "conv_exp", "bn1"), ("project", "conv_pwl", "bn2")
    layers = [("expand", "pw_exp"), ("project", "pw_proj")]
    layers += [("start", "dw_start")] * (block.start > 0)
    layers += [("middle", "dw_mid")] * (block.middle > 0)
    return tuple((ours, f"{theirs}.conv", f"{theirs}.bn") for ours, theirs in layers)


def _attention(ours: str, theirs: str, block: BlockPlan) -> list[MapEntry]:
    entries = [*batch_norm(f"{ours}.norm", f"{theirs}.norm")]
    for name in ("query", "key", "value"):
        other = f"{theirs}.attn.{name}"
        if name != "query" and block.kv_stride > 1:
            entries += layer(f"{ours}.attn.{name}_down_conv", f"{other}.down_conv", CONV, False)
            entries += batch_norm(f"{ours}.attn.{name}_down_norm", f"{other}.norm")
        entries += layer(f"{ours}.attn.{name}", f"{other}.proj", POINTWISE, bias=False)
    entries += layer(f"{ours}.attn.proj", f"{theirs}.attn.output.proj", POINTWISE, bias=False)
    return entries
