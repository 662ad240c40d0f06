"""DenseNet."""

from __future__ import annotations

from vision.models.densenet import DenseNet
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, batch_norm, conv_norm
from vision.weights.mapping import MapEntry, Names


def timm_densenet(tower: DenseNet) -> Names:
    """timm's ``densenet121`` to ``densenet201``, which are torchvision's too."""
    layers, _ = tower.resolved()
    entries: list[MapEntry] = [
        *conv_norm(("stem_conv", "stem_norm"), ("features.conv0", "features.norm0"))
    ]
    place = 0
    for block, count in enumerate(layers, 1):
        for i in range(1, count + 1):
            ours, theirs = f"block{place:02d}", f"features.denseblock{block}.denselayer{i}"
            for j in (1, 2):
                names = (f"{theirs}.conv{j}", f"{theirs}.norm{j}")
                entries += conv_norm((f"{ours}.conv{j}", f"{ours}.norm{j}"), names)
            place += 1
        if block < len(layers):
            ours, theirs = f"transition{block}", f"features.transition{block}"
            names = (f"{theirs}.conv", f"{theirs}.norm")
            entries += conv_norm((f"{ours}_conv", f"{ours}_norm"), names)
    # Theirs is called the fifth however many blocks there are.
    entries += batch_norm("norm", "features.norm5")
    return Names(tuple(entries), COUNTERS) + head(tower.num_classes, "classifier")
