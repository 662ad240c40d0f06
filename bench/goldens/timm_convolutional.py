"""How timm's convolutional networks are told, for timm_architectures.py."""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d, BlurPool2d, create_conv2d
from timm.models import convnext, regnet, resnet, resnetv2
from timm_relative import Differs, compare

STAGES = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
BOTTLENECKS = {(1, 1, 1, 1): 14, (2, 2, 2, 2): 26, (3, 4, 6, 3): 50}
BOTTLENECKS |= {(3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200, (3, 30, 48, 8): 269}
POOLS = {"MaxPool2d": ("none", None), "AvgPool2d": ("average", torch.nn.AvgPool2d)}


def depth_of(kind: str, blocks: tuple[int, ...], bottleneck: str) -> int:
    basic = {bottleneck.replace("Bottleneck", "Basic"), "BasicBlock"}
    table = STAGES if kind in basic else BOTTLENECKS if kind == bottleneck else {}
    if blocks not in table:
        raise Differs(f"it has {kind}s, {blocks} of them, which no ResNet here has")
    return table[blocks]


def res_net(model: resnet.ResNet) -> dict:
    kind = type(model.layer1[0]).__name__
    blocks = tuple(len(getattr(model, f"layer{i}")) for i in range(1, 5))
    if type(model) is not resnet.ResNet:
        raise Differs(f"it is a {type(model).__name__}, not timm's ResNet")
    depth = depth_of(kind, blocks, "Bottleneck")
    deep = isinstance(model.conv1, torch.nn.Sequential)
    widths = (model.conv1[0].out_channels, model.conv1[3].out_channels) if deep else (32, 32)
    tiered = widths[0] != widths[1]
    third = [] if not deep or model.conv1[6].out_channels == 64 else [model.conv1[6].out_channels]
    down = model.layer2[0].downsample
    average = isinstance(down[0], (torch.nn.AvgPool2d, torch.nn.Identity))
    first = model.layer1[0]
    groups = first.conv2.groups if kind == "Bottleneck" else 1
    inner = first.conv2.out_channels if kind == "Bottleneck" else 64
    squeeze = type(getattr(first, "se", None)).__name__ == "SEModule"
    alias, layer = POOLS.get(type(model.maxpool).__name__, ("blur", BlurPool2d))
    with torch.device("meta"):
        plain = resnet.ResNet(
            getattr(resnet, kind),
            blocks,
            cardinality=groups,
            base_width=inner // groups,
            stem_width=widths[1] if deep else 64,
            stem_type="deep_tiered" if tiered else "deep" if deep else "",
            avg_down=average,
            aa_layer=layer,
            **({"block_args": {"attn_layer": "se"}} if squeeze else {}),
        ).eval()
    compare(model, plain)
    return {
        "tower": "ResNet",
        "depth": depth,
        "stem": "deep" if deep else "imagenet",
        "downsample": "average" if average else "strided",
        "groups": groups,
        "group_width": inner // groups,
        **({} if widths == (32, 32) else {"stem_widths": [*widths, *third]}),
        **({"squeeze": True} if squeeze else {}),
        **({} if alias == "none" else {"anti_alias": alias}),
    }


def res_net_v2(model: resnetv2.ResNetV2) -> dict:
    stages = [stage.blocks for stage in model.stages]
    first = stages[0][0]
    if type(first.norm1) is not BatchNormAct2d:
        raise Differs(f"its norms are {type(first.norm1).__name__}, which no such tower here has")
    basic = type(first).__name__ == "PreActBasic"
    depth = depth_of(type(first).__name__, tuple(map(len, stages)), "PreActBottleneck")
    deep = hasattr(model.stem, "conv1")
    average = hasattr(stages[1][0].downsample, "pool")
    with torch.device("meta"):
        plain = resnetv2.ResNetV2(
            [len(blocks) for blocks in stages],
            channels=(64, 128, 256, 512) if basic else (256, 512, 1024, 2048),
            basic=basic,
            bottle_ratio=1.0 if basic else 0.25,
            stem_type="deep" if deep else "",
            avg_down=average,
            conv_layer=create_conv2d,
            norm_layer=BatchNormAct2d,
        ).eval()
    compare(model, plain)
    return {
        "tower": "ResNetV2",
        "depth": depth,
        "stem": "deep" if deep else "imagenet",
        "downsample": "average" if average else "strided",
    }


def reg_net(model: regnet.RegNet) -> dict:
    stages = [list(stage.children()) for stage in (model.s1, model.s2, model.s3, model.s4)]
    first = stages[0][0]
    if type(first) is not regnet.Bottleneck:
        raise Differs(f"its blocks are {type(first).__name__}s, which no RegNet here has")
    squeeze = 0.25 if type(first.se).__name__ == "SEModule" else 0.0
    groups = [blocks[0].conv2.conv for blocks in stages]
    widths = [conv.out_channels for conv in groups]
    group = max(conv.out_channels // conv.groups for conv in groups)
    if any(conv.groups * min(group, w) != w for conv, w in zip(groups, widths, strict=True)):
        raise Differs("its stages have groups of several widths, which no RegNet here has")
    with torch.device("meta"):
        plain = type(model)(regnet.RegNetCfg()).eval()
        plain.stem = regnet.ConvNormAct(3, model.stem.conv.out_channels, 3, stride=2)
        before = model.stem.conv.out_channels
        for i, (blocks, width) in enumerate(zip(stages, widths, strict=True), 1):
            stage = torch.nn.Module()
            for j in range(len(blocks)):
                sizes = {"stride": 1 if j else 2, "group_size": min(group, width)}
                block = regnet.Bottleneck(before, width, **sizes, se_ratio=squeeze)
                if j:
                    block.downsample = torch.nn.Identity()
                stage.add_module(f"b{j + 1}", block)
                before = width
            stage.__class__ = regnet.RegStage
            setattr(plain, f"s{i}", stage)
        plain.head.fc = torch.nn.Linear(before, model.num_classes)
        plain.eval()
    compare(model, plain)
    return {
        "tower": "RegNet",
        "depths": [len(blocks) for blocks in stages],
        "widths": widths,
        "group_width": group,
        "squeeze": squeeze,
        "stem_width": model.stem.conv.out_channels,
    }


def conv_next(model: convnext.ConvNeXt) -> dict:
    stages = [stage.blocks for stage in model.stages]
    block = stages[0][0]
    grn = not isinstance(getattr(block.mlp, "grn", torch.nn.Identity()), torch.nn.Identity)
    if not isinstance(model.stem[0], torch.nn.Conv2d):
        raise Differs("its stem is not one convolution")
    epsilon = block.norm.eps
    with torch.device("meta"):
        plain = convnext.ConvNeXt(
            depths=[len(blocks) for blocks in stages],
            dims=[blocks[0].conv_dw.out_channels for blocks in stages],
            patch_size=model.stem[0].stride[0],
            ls_init_value=None if block.gamma is None else 1e-6,
            conv_mlp=isinstance(block.mlp.fc1, torch.nn.Conv2d),
            use_grn=grn,
            norm_eps=epsilon,
            num_classes=model.num_classes,
        ).eval()
    compare(model, plain)
    return {
        "tower": "ConvNeXt",
        "depths": [len(blocks) for blocks in stages],
        "dims": [blocks[0].conv_dw.out_channels for blocks in stages],
        "stem_stride": model.stem[0].stride[0],
        "layer_scale": None if block.gamma is None else 1e-6,
        "grn": grn,
        **({} if epsilon == 1e-6 else {"norm_epsilon": epsilon}),
    }
