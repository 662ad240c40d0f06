"""What timm's names of architectures mean here: vision/weights/timm_architectures.json.

    .venv-peers/bin/python bench/goldens/timm_architectures.py  # or ...py resnet deit, some modules

A name maps to the class of ours and its fields, or to a text: why no tower here computes the same.
Fields are read off the model that timm builds. They are believed only if timm's plain class, built
with them, prints the same layers (``repr``), which shows activations, norms, epsilons, pooling in
the stem, anti-aliasing, squeeze-and-excitation; flags of the forward pass are compared by name.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
from timm.layers import SwiGLUPacked  # noqa: E402
from timm.models import vision_transformer  # noqa: E402
from timm_convolutional import conv_next, reg_net, res_net, res_net_v2  # noqa: E402
from timm_relative import Differs, compare, maxvit, mixer, relative, swin_v2, x_cit  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "vision" / "weights" / "timm_architectures.json"
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
POOLS = {"token": "cls", "avg": "mean", "map": "map"}


def create(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name).eval()


def vit(model: vision_transformer.VisionTransformer) -> dict:
    if type(model) is not vision_transformer.VisionTransformer:
        raise Differs(f"it is a {type(model).__name__}, not timm's VisionTransformer")
    if model.pos_embed is None:
        raise Differs("it has no learned positions (pos_embed)")
    if model.global_pool not in POOLS:
        raise Differs(f"it pools by global_pool={model.global_pool!r}, which no tower here does")
    block = model.blocks[0]
    if type(block).__name__ != "Block" or type(block.mlp).__name__ not in ("Mlp", "GluMlp"):
        kinds = f"{type(block).__name__} with {type(getattr(block, 'mlp', None)).__name__}"
        raise Differs(f"its blocks are {kinds}, which no tower here has")
    gated = type(block.mlp).__name__ == "GluMlp"
    hidden = block.mlp.fc1.out_features // (2 if gated else 1)
    activation = type(block.mlp.act).__name__
    if not gated and activation not in ACTIVATIONS:
        raise Differs(f"its activation is {activation}, which no tower here has")
    width, patch = model.embed_dim, model.patch_embed.patch_size
    scale = getattr(block.ls1, "gamma", None)
    fields = {
        "width": width,
        "depth": len(model.blocks),
        "mlp_dim": hidden,
        "heads": block.attn.num_heads,
        "patch": patch[0],
        "pool": POOLS[model.global_pool],
        "class_token": model.has_class_token,
        "prefix_positions": not model.no_embed_class,
        "registers": model.num_reg_tokens,
        "layer_scale": None if scale is None else block.ls1.init_values,
        "qkv_bias": block.attn.qkv.bias is not None,
        "activation": "swiglu" if gated else ACTIVATIONS[activation],
        "pre_norm": not isinstance(model.norm_pre, torch.nn.Identity),
        "norm_pooled": not isinstance(model.fc_norm, torch.nn.Identity),
        "norm_epsilon": getattr(block.norm1, "eps", 0.0),
    }
    with torch.device("meta"):
        plain = vision_transformer.VisionTransformer(
            img_size=model.patch_embed.img_size,
            patch_size=patch[0],
            embed_dim=width,
            depth=fields["depth"],
            num_heads=fields["heads"],
            mlp_ratio=(hidden * (2 if gated else 1) + 0.5) / width,
            qkv_bias=fields["qkv_bias"],
            init_values=fields["layer_scale"],
            class_token=fields["class_token"],
            global_pool=model.global_pool,
            no_embed_class=model.no_embed_class,
            reg_tokens=fields["registers"],
            pre_norm=fields["pre_norm"],
            fc_norm=fields["norm_pooled"],
            num_classes=model.num_classes,
            norm_layer=partial(torch.nn.LayerNorm, eps=fields["norm_epsilon"]),
            act_layer=torch.nn.SiLU if gated else type(block.mlp.act),
            **({"mlp_layer": SwiGLUPacked} if gated else {}),
        ).eval()
    flags = ("num_prefix_tokens", "pool_include_prefix", "has_class_token", "num_reg_tokens")
    compare(model, plain, flags)
    return {"tower": "ViT", **fields, "size": list(model.patch_embed.img_size)}


def swin(model: torch.nn.Module) -> dict:
    found = {"width": model.embed_dim, "depths": [], "heads": [], "windows": []}
    for stage in model.layers:
        found["depths"].append(len(stage.blocks))
        found["heads"].append(stage.blocks[0].attn.num_heads)
        found["windows"].append(stage.blocks[0].window_size[0])
    ratio = model.layers[0].blocks[0].mlp.fc1.out_features / model.embed_dim
    return {"tower": "Swin", **found, "mlp_ratio": ratio, "size": list(model.patch_embed.img_size)}


READERS = {
    "vision_transformer": vit,
    "deit": vit,
    "eva": relative,
    "beit": relative,
    "maxxvit": maxvit,
    "mlp_mixer": mixer,
    "swin_transformer_v2": swin_v2,
    "xcit": x_cit,
    "resnet": res_net,
    "resnetv2": res_net_v2,
    "regnet": reg_net,
    "convnext": conv_next,
    "swin_transformer": swin,
}
TENSORFLOW = {"padding": "same", "norm_epsilon": 1e-3}


def by_name() -> dict[str, dict]:
    """Families that are tables of their own here, each member of which is known by its name."""
    found = {}
    for i in range(8):
        fields = {"tower": "EfficientNet", "variant": f"B{i}"}
        found[f"efficientnet_b{i}"] = fields
        found[f"tf_efficientnet_b{i}"] = fields | TENSORFLOW
    for i in range(5):
        fields = {"tower": "EfficientNetLite", "variant": f"lite{i}"}
        found[f"efficientnet_lite{i}"] = fields
        found[f"tf_efficientnet_lite{i}"] = fields | TENSORFLOW
    for percent in (100, 125):
        found[f"mobilenetv1_{percent}"] = {
            "tower": "MobileNetV1",
            "width_multiplier": percent / 100,
        }
    for percent in (35, 50, 75, 100, 140):
        found[f"mobilenetv2_{percent:03d}"] = {
            "tower": "MobileNetV2",
            "width_multiplier": percent / 100,
        }
    for size, percents in (("large", (75, 100)), ("small", (50, 75, 100))):
        for percent in percents:
            fields = {"tower": "MobileNetV3", "size": size, "width_multiplier": percent / 100}
            found[f"mobilenetv3_{size}_{percent:03d}"] = fields
            if percent > 50:
                found[f"tf_mobilenetv3_{size}_{percent:03d}"] = fields | TENSORFLOW
    v4 = {"conv_small": ("", "_035", "_050"), "conv_medium": ("",), "conv_large": ("",)}
    v4 |= {"hybrid_medium": ("", "_075"), "hybrid_large": ("", "_075")}
    for variant, ends in v4.items():
        fields = {"tower": "MobileNetV4", "variant": variant}
        for end in ends:
            narrow = {"width_multiplier": int(end[1:]) / 100} if end else {}
            found[f"mobilenetv4_{variant}{end}"] = fields | narrow
    for size in ("medium", "large"):
        fields = {"tower": "MobileNetV4", "variant": f"conv_{size}", "anti_alias": "average"}
        found[f"mobilenetv4_conv_aa_{size}"] = fields
    for depth in (121, 161, 169, 201):
        found[f"densenet{depth}"] = {"tower": "DenseNet", "variant": str(depth)}
    for depth in (11, 13, 16, 19):
        for bn in (False, True):
            name = f"vgg{depth}{'_bn' if bn else ''}"
            found[name] = {"tower": "VGG", "depth": depth, "batch_norm": bn}
    for depth, width in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)):
        found[f"resnetv2_{depth}x{width}_bit"] = {
            "tower": "BiT",
            "depth": depth,
            "width_multiplier": float(width),
        }
    found["inception_v4"] = {"tower": "InceptionV4"}
    found["inception_resnet_v2"] = {"tower": "InceptionResNetV2"}
    return found


def refusal(name: str, module: str) -> str | None:
    if name in ("mobilenetv2_110d", "mobilenetv2_120d"):
        return "its first and last convolution keep their widths, which no MobileNetV2 here has"
    if name == "mobilenetv4_conv_blur_medium":
        return "it blurs with zeros beyond the edges, which no MobileNetV4 here does"
    if module in ("efficientnet", "mobilenetv3", "densenet", "vgg"):
        return f"no tower here is this member of timm's {module}"
    return None


def main():
    from timm.models._registry import _model_entrypoints

    known = by_name()
    chosen = sys.argv[1:]
    found: dict[str, dict | str] = json.loads(OUT.read_text()) if chosen else {}
    for name in sorted(timm.list_models()):
        module = _model_entrypoints[name].__module__.rpartition(".")[2]
        if chosen and module not in chosen:
            known.pop(name, None)
        elif name in known:
            found[name] = known.pop(name)
        elif module in READERS:
            try:
                found[name] = READERS[module](create(name))
            except Differs as error:
                found[name] = str(error)
        elif reason := refusal(name, module):
            found[name] = reason
    assert not known, f"timm has no {', '.join(known)}"
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found.items()))
    OUT.write_text(f"{{\n{lines}\n}}\n")
    OUT.chmod(0o644)
    print(len(found), "names,", sum(isinstance(v, dict) for v in found.values()), "read")


if __name__ == "__main__":
    main()
