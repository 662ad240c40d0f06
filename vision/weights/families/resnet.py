"""ResNet v1.5 and v1d, wide ResNet, ResNeXt and SE-ResNet."""

from __future__ import annotations

from vision.models.resnet import BASIC, STAGES, ResNet
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, POINTWISE, conv_norm, layer
from vision.weights.mapping import MapEntry, Names


def timm_resnet(tower: ResNet) -> Names:
    """timm's ``resnet*``, ``seresnet*``, ``wide_resnet*``, ``resnext*``, and torchvision's.

    Their variants with ``d``, ``t``, ``s``, ``aa`` and ``blur`` have the same names. torchvision
    has no deep stem, no average in shortcuts and no squeeze-and-excitation.
    """
    if tower.stem == "deep":
        stem = (("1", "conv1.0", "conv1.1"), ("2", "conv1.3", "conv1.4"), ("3", "conv1.6", "bn1"))
    else:
        stem = (("", "conv1", "bn1"),)
    entries: list[MapEntry] = []
    for place, conv, norm in stem:
        entries += conv_norm((f"stem_conv{place}", f"stem_norm{place}"), (conv, norm))
    basic = tower.depth in BASIC
    # A shortcut that averages has a layer without parameters first.
    first = 1 if tower.downsample == "average" else 0
    block = 0
    for stage, count in enumerate(STAGES[tower.depth], 1):
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"layer{stage}.{place}"
            for i in range(1, 3 if basic else 4):
                names = (f"{theirs}.conv{i}", f"{theirs}.bn{i}")
                entries += conv_norm((f"{ours}.conv{i}", f"{ours}.norm{i}"), names)
            if tower.squeeze:
                entries += layer(f"{ours}.se.reduce", f"{theirs}.se.fc1", POINTWISE)
                entries += layer(f"{ours}.se.expand", f"{theirs}.se.fc2", POINTWISE)
            if place == 0 and (stage > 1 or not basic):
                entries += conv_norm(
                    (f"{ours}.downsample_conv", f"{ours}.downsample_norm"),
                    (f"{theirs}.downsample.{first}", f"{theirs}.downsample.{first + 1}"),
                )
            block += 1
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "fc")


def transformers_resnet(tower: ResNet) -> Names:
    """transformers' ``ResNetModel`` and ``ResNetForImageClassification``."""
    entries: list[MapEntry] = [*_unit("stem_conv", "stem_norm", "embedder.embedder")]
    basic = tower.depth in BASIC
    block = 0
    for stage, count in enumerate(STAGES[tower.depth]):
        for place in range(count):
            ours, theirs = f"block{block:02d}", f"encoder.stages.{stage}.layers.{place}"
            for i in range(2 if basic else 3):
                names = f"{ours}.conv{i + 1}", f"{ours}.norm{i + 1}"
                entries += _unit(*names, f"{theirs}.layer.{i}")
            if place == 0 and (stage > 0 or not basic):
                names = f"{ours}.downsample_conv", f"{ours}.downsample_norm"
                entries += _unit(*names, f"{theirs}.shortcut")
            block += 1
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "classifier.1")


def _unit(conv: str, norm: str, theirs: str) -> tuple[MapEntry, ...]:
    return conv_norm((conv, norm), (f"{theirs}.convolution", f"{theirs}.normalization"))
