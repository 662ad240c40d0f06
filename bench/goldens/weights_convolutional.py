"""Writes tests/golden/weights/convolutional/: narrow timm and transformers models of more families.

    .venv-peers/bin/python bench/goldens/weights_convolutional.py [case ...]

Needs timm, transformers, torchvision and torch; see bench/requirements-peers.txt. Each file holds
the tensors of one model under ``weights/``, its ``images`` (B, h, w, 3), ``logits``, and under
``out/`` what its stages give as (B, h, w, C), named by the site of ours that they are; of
transformers' models the card is in the file's metadata. Weights and images are rounded to float16,
in which they are stored; everything is computed in float32.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

# Declares two operators before torchvision is imported.
from weights_cnn import CHANNELS, CLASSES, SIZE, narrow_resnet, randomise

import timm  # isort: skip
import transformers  # isort: skip
from timm.layers import BatchNormAct2d, BlurPool2d, create_conv2d  # isort: skip
from timm.models import regnet, resnet, resnetv2  # isort: skip

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "convolutional"
BLOCKS = ("", "block00", "block01", "block02", "block03")


def squeezed() -> nn.Module:
    """Squeeze-and-excitation, a tiered stem, means in shortcuts and blurred convolutions."""
    return resnet.ResNet(
        resnet.Bottleneck,
        (1, 1, 1, 1),
        CLASSES,
        stem_width=4,
        stem_type="deep_tiered",
        avg_down=True,
        aa_layer=BlurPool2d,
        block_args={"attn_layer": "se"},
        channels=[2 * c for c in CHANNELS],
    )


def averaged() -> nn.Module:
    model = narrow_resnet(resnet.BasicBlock)
    stages, _ = resnet.make_blocks(
        (resnet.BasicBlock,) * 4,
        CHANNELS,
        (1, 1, 1, 1),
        4,
        norm_layer=nn.BatchNorm2d,
        aa_layer=nn.AvgPool2d,
        attn_layer="se",
    )
    for name, stage in stages:
        setattr(model, name, stage)
    model.maxpool = nn.AvgPool2d(2)
    return model


def version_2(basic: bool, **options: object) -> nn.Module:
    """timm rounds channels to multiples of 8; here they stay as they are."""
    resnetv2.make_divisible = int
    return resnetv2.ResNetV2(
        [1, 1, 1, 1],
        CHANNELS if basic else tuple(4 * c for c in CHANNELS),
        CLASSES,
        stem_chs=4,
        basic=basic,
        bottle_ratio=1.0 if basic else 0.25,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
        **options,
    )


def reg_net(**options: object) -> nn.Module:
    sizes = {"depth": 6, "w0": 8, "wa": 8.0, "wm": 2.0, "group_size": 16, "stem_width": 8}
    return regnet.RegNet(regnet.RegNetCfg(**sizes, **options), num_classes=CLASSES)


def hugging(kind: str, **fields: object) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**fields, num_labels=CLASSES)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


DIMS = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}
CONVNEXT = ("", "block00", "block01", "block03", "block04")
CASES: Mapping[str, tuple[Callable[[], nn.Module], Sequence[str], tuple[int, int]]] = {
    "seresnet14t_blur": (squeezed, BLOCKS, SIZE),
    "seresnet10_aa": (averaged, BLOCKS, (64, 96)),
    "resnetv2_14": (lambda: version_2(False), BLOCKS, SIZE),
    "resnetv2_10d": (lambda: version_2(True, stem_type="deep", avg_down=True), BLOCKS, SIZE),
    "regnety": (
        lambda: reg_net(se_ratio=0.25),
        ("stem", "block00", "block01", "block04", "block05"),
        SIZE,
    ),
    "regnetx": (reg_net, ("stem", "block00", "block01", "block04", "block05"), SIZE),
    "transformers_resnet": (
        lambda: hugging(
            "ResNet",
            embedding_size=4,
            hidden_sizes=[16, 32, 64, 128],
            depths=[1, 1, 1, 1],
        ),
        BLOCKS,
        SIZE,
    ),
    "transformers_resnet_basic": (
        lambda: hugging(
            "ResNet",
            embedding_size=4,
            hidden_sizes=[4, 8, 16, 32],
            depths=[1, 1, 1, 1],
            layer_type="basic",
        ),
        BLOCKS,
        SIZE,
    ),
    "transformers_convnext": (lambda: hugging("ConvNext", **DIMS), CONVNEXT, SIZE),
    "transformers_convnextv2": (lambda: hugging("ConvNextV2", **DIMS), CONVNEXT, SIZE),
}


def computed(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    if hasattr(model, "forward_intermediates"):
        return model(images), model.forward_intermediates(images)[1]
    out = model(images, output_hidden_states=True)
    return out.logits, list(out.hidden_states)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or CASES:
        build, sites, size = CASES[name]
        torch.manual_seed(sum(map(ord, name)))
        model = build().eval()
        randomise(model)
        images = torch.randn(2, 3, *size).half().float()
        with torch.no_grad():
            logits, stages = computed(model, images)
        assert len(stages) == len(sites), name
        saved = {"images": images.permute(0, 2, 3, 1).half(), "logits": logits}
        for site, stage in zip(sites, stages, strict=True):
            if site:
                saved[f"out/{site}"] = stage.permute(0, 2, 3, 1)
        for key, x in model.state_dict().items():
            saved[f"weights/{key}"] = x.half() if x.is_floating_point() else x
        about = {"source": f"timm {timm.__version__}, torch {torch.__version__}"}
        if isinstance(model, transformers.PreTrainedModel):
            card = {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}
            about = {"card": json.dumps(card, default=str)}
        path = OUT / f"{name}.safetensors"
        save_file({key: x.contiguous() for key, x in saved.items()}, path, about)
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, logits {logits.std():.3f}")


if __name__ == "__main__":
    main()
