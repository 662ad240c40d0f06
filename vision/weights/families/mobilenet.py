"""MobileNetV1 to V3, EfficientNet and -Lite: tables of the same blocks, also in timm."""

from __future__ import annotations

from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, conv_norm, layer
from vision.weights.mapping import MapEntry, Names

# Kind of block to the layers of theirs: our convolution and norm, their convolution and norm.
_UNITS = {
    "inverted": (
        ("expand", "conv_pw", "bn1"),
        ("depthwise", "conv_dw", "bn2"),
        ("project", "conv_pwl", "bn3"),
    ),
    "separable": (("depthwise", "conv_dw", "bn1"), ("project", "conv_pw", "bn2")),
    "plain": (("depthwise", "conv_dw", "bn1"), ("project", "conv_pw", "bn2")),
    "pointwise": (("pointwise", "conv", "bn1"),),
}


Tower = MobileNetV1 | MobileNetV2 | MobileNetV3 | EfficientNet | EfficientNetLite


def timm_mobilenet(tower: Tower) -> Names:
    """timm's ``mobilenetv1_*`` to ``mobilenetv3_*``, ``efficientnet_b*`` and ``_lite*``.

    Those whose names begin with ``tf_`` need ``padding="same"`` and ``norm_epsilon=1e-3``.
    """
    plan = tower.resolved()
    entries: list[MapEntry] = [*conv_norm(("stem_conv", "stem_norm"), ("conv_stem", "bn1"))]
    stage, place = 0, 0
    for i, block in enumerate(plan.blocks):
        place = place + 1 if block.stage == stage and i > 0 else 0
        stage = block.stage
        ours, theirs = f"block{i:02d}", f"blocks.{stage}.{place}"
        for unit, conv, norm in _UNITS[block.kind]:
            entries += conv_norm(
                (f"{ours}.{unit}_conv", f"{ours}.{unit}_norm"),
                (f"{theirs}.{conv}", f"{theirs}.{norm}"),
            )
        if block.squeezed:
            entries += layer(f"{ours}.se.reduce", f"{theirs}.se.conv_reduce", POINTWISE)
            entries += layer(f"{ours}.se.expand", f"{theirs}.se.conv_expand", POINTWISE)
    if plan.pooled_head:
        entries += layer("head_dense", "conv_head", POINTWISE)
    elif plan.head is not None:
        entries += conv_norm(("head_conv", "head_norm"), ("conv_head", "bn2"))
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "classifier")
