"""Writes tests/golden/weights/cnn/: narrow, shallow timm models with what they compute.

    .venv-peers/bin/python bench/goldens/weights_cnn.py

Needs timm, torchvision and torch; see bench/requirements-peers.txt. Each file holds the tensors
of one model under ``weights/``, its ``images`` (B, h, w, 3), ``logits``, and under ``out/`` stages
of ``forward_intermediates`` as (B, h, w, C), named by the site of ours that they are. Weights and
images are rounded to float16, in which they are stored; everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

# torchvision's compiled operators are for CUDA builds of torch; no model here needs them, but
# importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
from timm.layers import ClassifierHead, GroupNormAct, StdConv2d  # noqa: E402
from timm.models import convnext, densenet, resnet, resnetv2, vgg  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "cnn"
CLASSES = 7
CHANNELS = (4, 8, 16, 32)
SIZE = (40, 56)  # odd after some of the halvings


def narrow_resnet(block: type[nn.Module]) -> nn.Module:
    """timm's 7x7 stem always has 64 channels; its parts here have 4."""
    model = resnet.ResNet(block, (1, 1, 1, 1), CLASSES, channels=CHANNELS)
    model.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
    model.bn1 = nn.BatchNorm2d(4)
    stages, _ = resnet.make_blocks(
        (block,) * 4, CHANNELS, (1, 1, 1, 1), 4, norm_layer=nn.BatchNorm2d
    )
    for name, stage in stages:
        setattr(model, name, stage)
    return model


def resnext_d() -> nn.Module:
    return resnet.ResNet(
        resnet.Bottleneck,
        (1, 1, 1, 1),
        CLASSES,
        cardinality=2,
        base_width=32,
        stem_width=2,
        stem_type="deep",
        avg_down=True,
        channels=CHANNELS,
    )


def bit() -> nn.Module:
    """timm rounds channels to multiples of 8; here they stay as they are."""
    resnetv2.make_divisible = int
    return resnetv2.ResNetV2(
        [1, 1, 1, 1],
        (16, 32, 64, 128),
        CLASSES,
        stem_chs=4,
        stem_type="fixed",
        norm_layer=partial(GroupNormAct, num_groups=2),
        conv_layer=partial(StdConv2d, eps=1e-8),
    )


def narrow_vgg(norm: type[nn.Module] | None) -> nn.Module:
    """timm's hidden layers always have 4096 channels; here they have 24."""
    widths = [c if c == "M" else c // 16 for c in vgg.cfgs["vgg11"]]
    model = vgg.VGG(widths, CLASSES, norm_layer=norm, mlp_ratio=1 / 4096)
    model.pre_logits = vgg.ConvMlp(32, 24, 7)
    model.head = ClassifierHead(24, CLASSES)
    return model


def convnext_of(**options: object) -> nn.Module:
    return convnext.ConvNeXt(
        num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(8, 12, 16, 24), **options
    )


CASES: Mapping[str, tuple[Callable[[], nn.Module], Sequence[str], tuple[int, int]]] = {
    # name: model, our sites of its intermediates ("" is none of ours), height and width
    "resnet10": (
        partial(narrow_resnet, resnet.BasicBlock),
        ("", "block00", "block01", "block02", "block03"),
        SIZE,
    ),
    "resnet14": (
        partial(narrow_resnet, resnet.Bottleneck),
        ("", "block00", "block01", "block02", "block03"),
        SIZE,
    ),
    "resnext14d": (resnext_d, ("", "block00", "block01", "block02", "block03"), SIZE),
    "bit14": (bit, ("", "block00", "block01", "block02", "block03"), SIZE),
    "convnext": (convnext_of, ("block00", "block01", "block03", "block04"), SIZE),
    "convnext_v2": (
        partial(convnext_of, use_grn=True, ls_init_value=None, conv_mlp=True),
        ("block00", "block01", "block03", "block04"),
        SIZE,
    ),
    "vgg11": (
        partial(narrow_vgg, None),
        ("", "block00", "block02", "block04", "block06", "map"),
        (34, 68),
    ),
    "vgg11_bn": (
        partial(narrow_vgg, nn.BatchNorm2d),
        ("", "block00", "block02", "block04", "block06", "map"),
        (34, 68),
    ),
    "densenet": (
        partial(densenet.DenseNet, 4, (2, 1, 2, 1), CLASSES),
        ("", "block01", "block02", "block04", "map"),
        SIZE,
    ),
}


def randomise(model: nn.Module) -> None:
    """No bias at zero, no scale at one: a tensor that is not used, or used twice, shows."""
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if not x.is_floating_point():
                continue
            if name.endswith("running_var") or (x.ndim == 1 and name.endswith(("weight", "gamma"))):
                x.uniform_(0.5, 1.5)
            elif x.ndim == 1:
                x.normal_(0, 0.2)
            else:
                x.normal_(0, (2 / x[0].numel()) ** 0.5)
            x.copy_(x.half().float())


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, (name, (build, sites, size)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = build().eval()
        randomise(model)
        images = torch.randn(2, 3, *size).half().float()
        with torch.no_grad():
            logits = model(images)
            _, stages = model.forward_intermediates(images)
        assert len(stages) == len(sites)
        saved = {"images": images.permute(0, 2, 3, 1).half(), "logits": logits}
        for site, stage in zip(sites, stages, strict=True):
            if site:
                saved[f"out/{site}"] = stage.permute(0, 2, 3, 1)
        for key, x in model.state_dict().items():
            saved[f"weights/{key}"] = x.half() if x.is_floating_point() else x
        path = OUT / f"{name}.safetensors"
        save_file(
            {key: x.contiguous() for key, x in saved.items()},
            path,
            {"source": f"timm {timm.__version__}, torch {torch.__version__}"},
        )
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, logits {logits.std():.3f}")


if __name__ == "__main__":
    main()
