"""The models that ``bench.parity`` compares, with what their libraries compute of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A model: what the table calls it, whose file it is, and our tower: None is the card's."""

    family: str
    variant: str
    source: str
    tower: Callable[[], Any] | None = None
    learned: tuple[str, ...] = ()


def _vit(**fields: Any) -> Any:
    from vision.models.vit import ViT

    return ViT(**fields)


def _text(**fields: Any) -> Any:
    from vision.models.text import TextTransformer

    return TextTransformer(**fields)


def _tower(module: str, name: str, **fields: Any) -> Any:
    from importlib import import_module

    return getattr(import_module(f"vision.models.{module}"), name)(**fields)


def _clip() -> Any:
    image = _vit(
        variant="B/32",
        class_position=True,
        pre_norm=True,
        norm_epsilon=1e-5,
        activation="quick_gelu",
    )
    text = _text(vocab_size=49408, pool="argmax", norm_epsilon=1e-5, activation="quick_gelu")
    return _tower("dual", "Dual", image=image, text=text, width=512)


def _siglip(activation: str) -> Any:
    sizes = {"vocab_size": 32000, "width": 768, "heads": 12, "context": 64}
    text = _text(**sizes, causal=False, pad_id=None, activation=activation)
    image = _vit(variant="B/16", pool="map", activation=activation)
    return _tower(
        "dual", "Dual", image=image, text=text, width=768, image_projection=False, bias=True
    )


def _bert() -> Any:
    return _text(
        vocab_size=30522,
        width=768,
        heads=12,
        context=512,
        causal=False,
        post_norm=True,
        segments=2,
        pool="first",
        pooler=True,
        norm_epsilon=1e-12,
    )


_DINOV2 = functools.partial(_vit, variant="S/14", class_position=True, layer_scale=1.0)
_SCALE, _BOTH = ("log_scale",), ("log_scale", "bias")
MODELS: Mapping[str, Case] = {
    "vit_b16": Case(
        "ViT",
        "B/16",
        "timm",
        functools.partial(_vit, variant="B/16", class_position=True, num_classes=1000),
    ),
    "dinov2_s14_timm": Case("DINOv2", "ViT-S/14", "timm", _DINOV2),
    "dinov2_s14_transformers": Case("DINOv2", "ViT-S/14", "transformers", _DINOV2),
    "resnet50": Case(
        "ResNet", "50", "timm", functools.partial(_tower, "resnet", "ResNet", num_classes=1000)
    ),
    "convnext_t": Case(
        "ConvNeXt",
        "T",
        "timm",
        functools.partial(_tower, "convnext", "ConvNeXt", variant="tiny", num_classes=1000),
    ),
    "swin_t": Case(
        "Swin",
        "T",
        "timm",
        functools.partial(_tower, "swin", "Swin", variant="T", num_classes=1000),
    ),
    "efficientnet_b0": Case(
        "EfficientNet",
        "B0",
        "timm",
        functools.partial(_tower, "efficientnet", "EfficientNet", variant="B0", num_classes=1000),
    ),
    "clip_b32": Case("CLIP, complete", "ViT-B/32", "open_clip", _clip, _SCALE),
    "clip_b32_transformers": Case("CLIP, complete", "ViT-B/32", "transformers", _clip, _SCALE),
    "siglip_b16": Case(
        "SigLIP, complete", "B/16", "open_clip", functools.partial(_siglip, "gelu"), _BOTH
    ),
    "siglip_b16_transformers": Case(
        "SigLIP, complete", "B/16", "transformers", functools.partial(_siglip, "gelu_tanh"), _BOTH
    ),
    "bert_base": Case("BERT", "base", "transformers", _bert),
    "deit3_s16": Case("DeiT III", "S/16", "timm"),
    "so150m": Case("ViT, registers with positions", "so150m2/16", "timm"),
    "dinov2_s14_head": Case("DINOv2, classifier", "S/14, 4 registers", "transformers"),
    "dinov3_s16_timm": Case("DINOv3", "S/16", "timm"),
    "dinov3_s16_transformers": Case("DINOv3", "S/16", "transformers"),
    "beit_b16_timm": Case("BEiT", "B/16", "timm"),
    "beit_b16_transformers": Case("BEiT", "B/16", "transformers"),
    "eva02_ti14": Case("EVA-02", "Ti/14", "timm"),
    "swinv2_t": Case("Swin V2", "T, window 8", "timm"),
    "mixer_b16": Case("MLP-Mixer", "B/16", "timm"),
    "tf_efficientnet_lite0": Case("EfficientNet-Lite, SAME", "lite0", "timm"),
    "seresnet50": Case("SE-ResNet", "50", "timm"),
    "resnetaa50": Case("ResNet, means", "50", "timm"),
    "resnetblur50": Case("ResNet, blur", "50", "timm"),
    "resnetv2_50": Case("ResNet v2, BatchNorm", "50", "timm"),
    "regnety_016": Case("RegNetY", "1.6GF", "timm"),
    "resnet50_transformers": Case("ResNet", "50", "transformers"),
    "xcit_nano": Case("XCiT", "nano, 12 blocks, p16", "timm"),
    "maxvit_t": Case("MaxViT", "T, of Google", "timm"),
    "mobilenetv4_conv_small": Case("MobileNetV4", "small", "timm"),
    "resnet50d": Case("ResNet-D", "50", "timm"),
    "convnextv2_t": Case("ConvNeXt V2", "T", "timm"),
    **{f"efficientnet_b{i}": Case("EfficientNet", f"B{i}", "timm") for i in range(1, 5)},
    "tf_efficientnet_b0": Case("EfficientNet, SAME", "B0", "timm"),
    **{
        f"tf_efficientnet_lite{i}": Case("EfficientNet-Lite, SAME", f"lite{i}", "timm")
        for i in (1, 2, 3, 4)
    },
    "mobilenetv4_hybrid_medium": Case("MobileNetV4", "hybrid, medium", "timm"),
    "dinov2_s14_reg4": Case("DINOv2", "S/14, 4 registers", "timm"),
    "vit_s16_rope": Case("ViT, rotary positions", "S/16", "timm"),
    "eva02_b16_clip": Case("EVA-02-CLIP, image tower", "B/16", "timm"),
    "vit_b16_transformers": Case("ViT", "B/16", "transformers"),
    "convnextv2_t_transformers": Case("ConvNeXt V2", "T", "transformers"),
    "swinv2_t_transformers": Case("Swin V2", "T, window 8", "transformers"),
    "siglip2_naflex": Case(
        "SigLIP2, images of any shape", "B/16, 256 and 198 patches", "transformers"
    ),
    "coca_b32": Case("CoCa, both towers", "ViT-B/32", "open_clip", None, _SCALE),
    "eva02_b16_open_clip": Case("EVA-02-CLIP, complete", "B/16", "open_clip", None, _SCALE),
}
