"""EfficientNet and EfficientNet-Lite as the packages efficientnet_pytorch name them."""

from __future__ import annotations

from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, conv_norm, layer
from vision.weights.mapping import MapEntry, Names

# Our convolution and norm to theirs, in the order in which a block has them.
_UNITS = (
    ("expand", "_expand_conv", "_bn0"),
    ("depthwise", "_depthwise_conv", "_bn1"),
    ("project", "_project_conv", "_bn2"),
)


def efficientnet_pytorch(tower: EfficientNet | EfficientNetLite) -> Names:
    """``efficientnet_pytorch``, ``efficientnet_lite_pytorch`` and their copies.

    Their weights were converted from TensorFlow's: towers have ``padding="same"`` and
    ``norm_epsilon=1e-3``.
    """
    plan = tower.resolved()
    entries: list[MapEntry] = [*conv_norm(("stem_conv", "stem_norm"), ("_conv_stem", "_bn0"))]
    for i, block in enumerate(plan.blocks):
        ours, theirs = f"block{i:02d}", f"_blocks.{i}"
        for unit, conv, norm in _UNITS if block.kind == "inverted" else _UNITS[1:]:
            entries += conv_norm(
                (f"{ours}.{unit}_conv", f"{ours}.{unit}_norm"),
                (f"{theirs}.{conv}", f"{theirs}.{norm}"),
            )
        if block.squeezed:
            entries += layer(f"{ours}.se.reduce", f"{theirs}._se_reduce", POINTWISE)
            entries += layer(f"{ours}.se.expand", f"{theirs}._se_expand", POINTWISE)
    entries += conv_norm(("head_conv", "head_norm"), ("_conv_head", "_bn1"))
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "_fc")
