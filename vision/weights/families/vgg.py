"""VGG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vision.models.vgg import STAGES, VGG
from vision.weights.families.heads import head
from vision.weights.families.units import COUNTERS, batch_norm, layer
from vision.weights.mapping import CONV, Form, MapEntry, Names


def timm_vgg(tower: VGG) -> Names:
    """timm's ``vgg*`` and ``vgg*_bn``."""
    hidden = (*layer("fc1", "pre_logits.fc1", CONV), *layer("fc2", "pre_logits.fc2", CONV))
    names = Names((*_features(tower), *hidden), COUNTERS)
    return names + head(tower.num_classes, "head.fc")


def torchvision_vgg(tower: VGG) -> Names:
    """torchvision's ``vgg*`` and ``vgg*_bn``, whose hidden layers are dense."""
    entries = (
        *_features(tower),
        *layer("fc1", "classifier.0", _unrolled(tower.window)),
        *layer("fc2", "classifier.3", _unrolled(1)),
    )
    return Names(entries, COUNTERS) + head(tower.num_classes, "classifier.6")


def _features(tower: VGG) -> list[MapEntry]:
    entries: list[MapEntry] = []
    block, place = -1, 0
    for count in STAGES[tower.depth]:
        for _ in range(count):
            ours = "stem" if block < 0 else f"block{block:02d}"
            entries += layer(f"{ours}.conv", f"features.{place}", CONV)
            if tower.batch_norm:
                entries += batch_norm(f"{ours}.norm", f"features.{place + 1}")
            block += 1
            # Convolution, BatchNorm if any, ReLU.
            place += 3 if tower.batch_norm else 2
        place += 1  # pooling
    return entries


def _unrolled(side: int) -> Form:
    """Dense layer over a map of ``side`` x ``side`` that is flattened with its channels first."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        kernel = tensors[0].reshape(len(tensors[0]), -1, side, side)
        return kernel.transpose(2, 3, 1, 0)

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return (array.transpose(3, 2, 0, 1).reshape(array.shape[3], -1),)

    return Form(f"linear (out, channels x {side} x {side})", read, write)
