"""ConvNeXt and ConvNeXt V2."""

from __future__ import annotations

from vision.models.convnext import ConvNeXt
from vision.weights.families.heads import head
from vision.weights.families.units import POINTWISE, layer, norm
from vision.weights.mapping import CONV, LINEAR, MapEntry, Names, reshaped

# Variants whose MLPs timm writes as 1x1 convolutions.
_POINTWISE = ("atto", "femto", "pico", "nano")


def timm_convnext(tower: ConvNeXt, pointwise: bool | None = None) -> Names:
    """timm's ``convnext_*`` with the patch stem, and ``convnextv2_*``.

    Args:
      tower: whose parameters are named.
      pointwise: whether dense layers of the MLPs are 1x1 convolutions there, as from atto to
        nano; None goes by the tower's variant.
    """
    if pointwise is None:
        pointwise = tower.variant in _POINTWISE
    dense = POINTWISE if pointwise else LINEAR
    entries: list[MapEntry] = [*layer("stem_conv", "stem.0", CONV), *norm("stem_norm", "stem.1")]
    block = 0
    depths, _ = tower.resolved()
    for stage, count in enumerate(depths):
        if stage > 0:
            entries += norm(f"downsample{stage}_norm", f"stages.{stage}.downsample.0")
            entries += layer(f"downsample{stage}_conv", f"stages.{stage}.downsample.1", CONV)
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"stages.{stage}.blocks.{place}"
            entries += layer(f"{ours}.conv_dw", f"{theirs}.conv_dw", CONV)
            entries += norm(f"{ours}.norm", f"{theirs}.norm")
            for fc in ("fc1", "fc2"):
                entries += layer(f"{ours}.mlp.{fc}", f"{theirs}.mlp.{fc}", dense)
            if tower.grn:
                grn = f"params.{ours}.mlp.grn"
                entries.append(MapEntry(f"{grn}.gamma", (f"{theirs}.mlp.grn.weight",)))
                entries.append(MapEntry(f"{grn}.beta", (f"{theirs}.mlp.grn.bias",)))
            if tower.layer_scale is not None:
                entries.append(MapEntry(f"params.{ours}.ls.gamma", (f"{theirs}.gamma",)))
            block += 1
    entries += norm("norm", "head.norm")
    return Names(tuple(entries)) + head(tower.num_classes, "head.fc")


def torchvision_convnext(tower: ConvNeXt) -> Names:
    """torchvision's ``convnext_tiny`` to ``convnext_large``."""
    channels = reshaped("layer scale (C, 1, 1)", (-1,), (-1, 1, 1))
    entries: list[MapEntry] = [
        *layer("stem_conv", "features.0.0", CONV),
        *norm("stem_norm", "features.0.1"),
    ]
    block = 0
    depths, _ = tower.resolved()
    for stage, count in enumerate(depths):
        if stage > 0:
            entries += norm(f"downsample{stage}_norm", f"features.{2 * stage}.0")
            entries += layer(f"downsample{stage}_conv", f"features.{2 * stage}.1", CONV)
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"features.{2 * stage + 1}.{place}"
            entries += layer(f"{ours}.conv_dw", f"{theirs}.block.0", CONV)
            entries += norm(f"{ours}.norm", f"{theirs}.block.2")
            entries += layer(f"{ours}.mlp.fc1", f"{theirs}.block.3")
            entries += layer(f"{ours}.mlp.fc2", f"{theirs}.block.5")
            scale = MapEntry(f"params.{ours}.ls.gamma", (f"{theirs}.layer_scale",), channels)
            entries.append(scale)
            block += 1
    entries += norm("norm", "classifier.0")
    return Names(tuple(entries)) + head(tower.num_classes, "classifier.2")


def transformers_convnext(tower: ConvNeXt) -> Names:
    """transformers' ``ConvNextModel`` and ``ConvNextV2Model``, and their classifiers.

    Both have ``final_epsilon=1e-12``.
    """
    response = reshaped("response (1, 1, 1, C)", (-1,), (1, 1, 1, -1))
    embeddings, encoder = "embeddings.", "encoder.stages."
    entries: list[MapEntry] = [
        *layer("stem_conv", f"{embeddings}patch_embeddings", CONV),
        *norm("stem_norm", f"{embeddings}layernorm"),
    ]
    block = 0
    depths, _ = tower.resolved()
    for stage, count in enumerate(depths):
        if stage > 0:
            entries += norm(f"downsample{stage}_norm", f"{encoder}{stage}.downsampling_layer.0")
            entries += layer(
                f"downsample{stage}_conv", f"{encoder}{stage}.downsampling_layer.1", CONV
            )
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"{encoder}{stage}.layers.{place}"
            entries += layer(f"{ours}.conv_dw", f"{theirs}.dwconv", CONV)
            entries += norm(f"{ours}.norm", f"{theirs}.layernorm")
            entries += layer(f"{ours}.mlp.fc1", f"{theirs}.pwconv1")
            entries += layer(f"{ours}.mlp.fc2", f"{theirs}.pwconv2")
            if tower.grn:
                for leaf, name in (("gamma", "weight"), ("beta", "bias")):
                    names = f"params.{ours}.mlp.grn.{leaf}", (f"{theirs}.grn.{name}",)
                    entries.append(MapEntry(*names, response))
            if tower.layer_scale is not None:
                scale = (f"{theirs}.layer_scale_parameter",)
                entries.append(MapEntry(f"params.{ours}.ls.gamma", scale))
            block += 1
    entries += norm("norm", "layernorm")
    return Names(tuple(entries)) + head(tower.num_classes, "classifier")
