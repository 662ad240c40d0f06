"""Writes tests/golden/layer_decay.json: the scales of timm's param_groups_layer_decay, by tensor.

.venv-peers/bin/python bench/goldens/layer_decay.py
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import torch

# torchvision's compiled operators are for CUDA builds of torch; no model here needs them, but
# importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from timm.models import convnext, resnet, swin_transformer, vision_transformer  # noqa: E402
from timm.optim import param_groups_layer_decay  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "layer_decay.json"
DECAY = 0.65
CLASSES = 3
VIT = {"embed_dim": 16, "num_heads": 2, "depth": 3, "img_size": 32, "num_classes": CLASSES}


def towers() -> dict[str, torch.nn.Module]:
    """Those of tests/train/test_layer_decay.py."""
    vit = vision_transformer.VisionTransformer
    sizes = {"depths": (1, 2), "num_heads": (2, 4), "num_classes": CLASSES}
    stages = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "num_classes": CLASSES}
    return {
        "vit": vit(**VIT, reg_tokens=2, no_embed_class=False, pre_norm=True),
        "vit_map": vit(**VIT, global_pool="map", class_token=False),
        "swin": swin_transformer.SwinTransformer(32, embed_dim=8, window_size=4, **sizes),
        "convnext": convnext.ConvNeXt(**stages),
        "resnet": resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), CLASSES),
    }


def main() -> None:
    found: dict[str, object] = {"timm": importlib.metadata.version("timm"), "decay": DECAY}
    for name, tower in towers().items():
        names = {id(parameter): key for key, parameter in tower.named_parameters()}
        groups = param_groups_layer_decay(tower, layer_decay=DECAY)
        scales: dict[str, list[str]] = {}
        for group in groups:
            keys = [names[id(parameter)] for parameter in group["params"]]
            scales.setdefault(repr(group["lr_scale"]), []).extend(keys)
        found[name] = {scale: sorted(keys) for scale, keys in sorted(scales.items())}
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
