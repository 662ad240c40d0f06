"""Writes tests/golden/weights/mobile/: narrow, shallow timm models with what they compute.

    .venv-peers/bin/python bench/goldens/weights_mobile.py [case ...]

Needs timm, torchvision and torch; see bench/requirements-peers.txt. Each file holds the tensors
of one model under ``weights/``, its ``images`` (B, h, w, 3), ``logits``, and under ``out/`` what
its layers return as (B, h, w, C), named by the site of ours that they are. What
``forward_intermediates`` returns is among them, but for layers inside our stem. Weights and images
are rounded to float16, in which they are stored; everything is computed in float32.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

# torchvision's compiled operators are for CUDA builds of torch; no model here needs them, but
# importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
from timm.layers import BatchNormAct2d, ConvNormAct  # noqa: E402
from timm.models import efficientnet, mobilenetv3, swin_transformer  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "mobile"
# timm.models has functions of these names.
inception_v4 = importlib.import_module("timm.models.inception_v4")
inception_resnet_v2 = importlib.import_module("timm.models.inception_resnet_v2")

CLASSES = 7
HEAD = 24
NARROW = {"channel_multiplier": 0.125, "num_classes": CLASSES}


class Case(NamedTuple):
    build: Callable[[], tuple[nn.Module, Mapping[str, nn.Module]]]
    images: tuple[int, int, int]  # number, height, width
    inside: int = 0  # stages of forward_intermediates inside our stem
    gain: float = 2.0  # variance of kernels, times their fan-in


def mobile_sites(model: nn.Module) -> dict[str, nn.Module]:
    blocks = [block for stage in model.blocks for block in stage]
    return {"stem": model.bn1} | {f"block{i:02d}": block for i, block in enumerate(blocks)}


def mobilenet_v2(**options: object) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """timm's last convolution never has less than 1280 channels; here it has 24."""
    model = efficientnet._gen_mobilenet_v2("mobilenetv2_100", **NARROW, **options)
    model.conv_head = nn.Conv2d(model.conv_head.in_channels, HEAD, 1, bias=False)
    model.bn2 = BatchNormAct2d(HEAD, act_layer=nn.ReLU6)
    model.classifier = nn.Linear(HEAD, CLASSES)
    return model, mobile_sites(model) | {"map": model.bn2}


def mobilenet_v1(**options: object) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    model = efficientnet._gen_mobilenet_v1("mobilenetv1_100", **NARROW, **options)
    return model, mobile_sites(model)


def mobilenet_v3(variant: str, **options: object) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """timm's hidden layer of the head always has 1280 or 1024 channels; here it has 24."""
    model = mobilenetv3._gen_mobilenet_v3(variant, **NARROW, **options)
    model.conv_head = nn.Conv2d(model.conv_head.in_channels, HEAD, 1)
    model.classifier = nn.Linear(HEAD, CLASSES)
    return model, mobile_sites(model)


def efficient(**options: object) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    model = efficientnet._gen_efficientnet("efficientnet_b0", **NARROW, **options)
    return model, mobile_sites(model) | {"map": model.bn2}


def efficient_lite(**options: object) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """timm's last convolution always has 1280 channels; here it has 24."""
    model = efficientnet._gen_efficientnet_lite("efficientnet_lite0", **NARROW, **options)
    model.conv_head = nn.Conv2d(model.conv_head.in_channels, HEAD, 1, bias=False)
    model.bn2 = BatchNormAct2d(HEAD, eps=model.bn2.eps, act_layer=nn.ReLU6)
    model.classifier = nn.Linear(HEAD, CLASSES)
    return model, mobile_sites(model) | {"map": model.bn2}


def mobilenet_v4(
    variant: str, kept: tuple[tuple[int, ...], ...], **options: object
) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """Of timm's blocks those of these places in their stages; the head has 24 hidden units."""
    model = mobilenetv3._gen_mobilenet_v4(f"mobilenetv4_{variant}", **NARROW, **options)
    for i, places in enumerate(kept):
        model.blocks[i] = nn.Sequential(*(model.blocks[i][place] for place in places))
    model.conv_head = nn.Conv2d(model.conv_head.in_channels, HEAD, 1, bias=False)
    model.norm_head = BatchNormAct2d(HEAD, act_layer=type(model.norm_head.act))
    model.classifier = nn.Linear(HEAD, CLASSES)
    return model, mobile_sites(model)


def narrow_unit(channels: int, features: int, **options: object) -> nn.Module:
    """timm's Inceptions have fixed widths; here they are divided by 16."""
    channels = channels if channels == 3 else channels // 16
    return ConvNormAct(channels, features // 16, **options)


def inception4() -> tuple[nn.Module, Mapping[str, nn.Module]]:
    inception_v4.ConvNormAct = narrow_unit
    model = inception_v4.InceptionV4(CLASSES)
    # One A, one B and one C block.
    model.features = nn.Sequential(
        *(model.features[i] for i in (0, 1, 2, 3, 4, 5, 6, 10, 11, 18, 19))
    )
    model.stage_ends = [2, 3, 6, 8, 10]
    model.last_linear = nn.Linear(1536 // 16, CLASSES)
    blocks = {f"block{i:02d}": block for i, block in enumerate(model.features[6:])}
    return model, {"stem": model.features[5]} | blocks


def inception_resnet() -> tuple[nn.Module, Mapping[str, nn.Module]]:
    inception_resnet_v2.ConvNormAct = narrow_unit
    model = inception_resnet_v2.InceptionResnetV2(CLASSES)
    model.repeat, model.repeat_1, model.repeat_2 = (
        model.repeat[:1],
        model.repeat_1[:1],
        model.repeat_2[:1],
    )
    blocks = [
        *model.repeat,
        model.mixed_6a,
        *model.repeat_1,
        model.mixed_7a,
        *model.repeat_2,
        model.block8,
    ]
    for block in blocks:
        if hasattr(block, "conv2d"):
            old = block.conv2d
            block.conv2d = nn.Conv2d(old.in_channels // 16, old.out_channels // 16, 1)
    model.classif = nn.Linear(1536 // 16, CLASSES)
    sites = {"stem": model.mixed_5b, "map": model.conv2d_7b}
    return model, sites | {f"block{i:02d}": block for i, block in enumerate(blocks)}


def swin(size: tuple[int, int]) -> tuple[nn.Module, Mapping[str, nn.Module]]:
    """Three stages of which windows of 4 fit none; the last is smaller than a window."""
    model = swin_transformer.SwinTransformer(
        size, 4, 3, CLASSES, embed_dim=8, depths=(2, 2, 1), num_heads=(1, 2, 4), window_size=4
    )
    blocks = [block for stage in model.layers for block in stage.blocks]
    sites = {"stem": model.patch_embed, "map": model.norm}
    return model, sites | {f"block{i:02d}": block for i, block in enumerate(blocks)}


TENSORFLOW = {"pad_type": "same", "bn_eps": 1e-3}
CASES: Mapping[str, Case] = {
    "mobilenet_v2": Case(partial(mobilenet_v2, depth_multiplier=0.3), (2, 36, 45)),
    "mobilenet_v3_large": Case(
        partial(mobilenet_v3, "mobilenetv3_large_100", depth_multiplier=0.5), (2, 36, 45), gain=1.0
    ),
    "mobilenet_v3_small": Case(
        partial(mobilenet_v3, "mobilenetv3_small_100", depth_multiplier=0.5, **TENSORFLOW),
        (2, 36, 46),
    ),
    "efficientnet": Case(partial(efficient, depth_multiplier=0.3), (2, 36, 45)),
    "mobilenet_v4_small": Case(
        partial(mobilenet_v4, "conv_small", ((0, 1), (0, 1), (0, 1, 5), (0,), (0,))), (2, 36, 45)
    ),
    "mobilenet_v4_aa": Case(
        partial(mobilenet_v4, "conv_aa_medium", ((0,), (0,), (0, 7), (0, 4), (0,)), aa_layer="avg"),
        (2, 36, 45),
    ),
    "mobilenet_v4_hybrid": Case(
        partial(mobilenet_v4, "hybrid_large", ((0,), (0,), (0, 7, 14), (0, 10, 11), (0,))),
        (2, 36, 76),
        gain=1.0,
    ),
    "inception_v4": Case(inception4, (1, 107, 115), inside=2),
    "inception_resnet_v2": Case(inception_resnet, (1, 107, 115), inside=2),
    "swin": Case(partial(swin, (36, 44)), (2, 36, 44)),
    "efficientnet_lite": Case(
        partial(efficient_lite, depth_multiplier=0.3, **TENSORFLOW), (2, 36, 46)
    ),
    "mobilenet_v1": Case(partial(mobilenet_v1, depth_multiplier=0.5), (2, 36, 45)),
}


def randomise(model: nn.Module, gain: float) -> None:
    """No bias at zero, no scale at one: a tensor that is not used, or used twice, shows."""
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if not x.is_floating_point():
                continue
            positive = name.endswith(("gamma", "running_var"))
            if positive or (x.ndim == 1 and name.endswith("weight")):
                x.uniform_(0.5, 1.5)
            elif x.ndim == 1:
                x.normal_(0, 0.2)
            elif name.endswith("bias_table"):
                x.normal_()
            else:
                x.normal_(0, (gain / x[0].numel()) ** 0.5)
            x.copy_(x.half().float())


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(CASES.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(seed)
        model, sites = case.build()
        model.eval()
        randomise(model, case.gain)
        number, *size = case.images
        images = torch.randn(number, 3, *size).half().float()
        found: dict[str, torch.Tensor] = {}

        def keep(site: str, found: dict[str, torch.Tensor] = found) -> Callable[..., None]:
            return lambda module, inputs, output: found.update({site: output.clone()})

        for site, module in sites.items():
            module.register_forward_hook(keep(site))
        with torch.no_grad():
            logits = model(images)
            _, stages = model.forward_intermediates(images)
        channels_last = isinstance(model, swin_transformer.SwinTransformer)
        if not channels_last:
            found = {site: x.permute(0, 2, 3, 1) for site, x in found.items()}
        for stage in stages[case.inside :]:
            assert any(torch.equal(stage.permute(0, 2, 3, 1), x) for x in found.values()), name
        saved = {f"out/{site}": x for site, x in found.items()}
        saved |= {"images": images.permute(0, 2, 3, 1).half(), "logits": logits}
        for key, x in model.state_dict().items():
            saved[f"weights/{key}"] = x.half() if x.is_floating_point() else x
        path = OUT / f"{name}.safetensors"
        save_file(
            {key: x.contiguous() for key, x in saved.items()},
            path,
            {"source": f"timm {timm.__version__}, torch {torch.__version__}"},
        )
        spread = ", ".join(f"{x.std():.2g}" for x in found.values())
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, logits {logits.std():.3f}")
        print(f"  spread of its layers: {spread}")


if __name__ == "__main__":
    main()
