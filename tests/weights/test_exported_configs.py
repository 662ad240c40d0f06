"""Configs that other libraries get are those that ours reads back as the same tower."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from vision.config.specs import build
from vision.models.efficientnet import EfficientNet
from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.relative_vit import RelativeViT
from vision.models.resnet import ResNet
from vision.models.rope import Rope
from vision.models.swin import Swin
from vision.models.swin_v2 import SwinV2
from vision.models.vit import ViT
from vision.weights.agreement import differences
from vision.weights.cards import CardObject
from vision.weights.configs import config_of
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing
from vision.weights.transformers_cards import transformers_tower

CARD = Preprocessing(size=(32, 32))
VIT: dict[str, Any] = {"width": 24, "depth": 2, "heads": 2, "mlp_dim": 52, "patch": 8}
DINO = {**VIT, "layer_scale": 0.1, "class_position": True, "mlp_dim": 48}
BEIT = {**VIT, "qkv_bias": "qv", "layer_scale": 0.1}
ROPE = {**VIT, "layer_scale": 0.1, "rope": Rope("centered", 50.0, halves=True)}
SWIN: dict[str, Any] = {"width": 16, "depths": (2, 2), "heads": (1, 2)}
TOWERS = {
    "dinov2": ViT(**DINO, registers=3, pool="cls_mean", num_classes=5),
    "dinov2_gated": ViT(**{**DINO, "mlp_dim": 64}, activation="swiglu", qkv_bias=False),
    "dinov3": RelativeViT(**ROPE, registers=3, qkv_bias="qv", norm_epsilon=1e-5),
    "dinov3_gated": RelativeViT(**ROPE, activation="swiglu"),
    "beit": RelativeViT(**BEIT, bias="block", pool="mean", norm_pooled=True, num_classes=5),
    "beit_shared": RelativeViT(**BEIT, bias="shared", posemb="tokens", activation="gelu_tanh"),
    "swin_v2": SwinV2(**SWIN, windows=(3, 3), fixed_shifts=(1, 1), trained_windows=(4, 0)),
    "swin_v2_whole": SwinV2(**SWIN, windows=(5, 4), fixed_shifts=(2, 0)),
}


@pytest.mark.parametrize("case", TOWERS)
def test_transformers(case: str):
    tower = TOWERS[case]
    content = config_of("transformers", tower, CARD)["config.json"]
    read = build(transformers_tower(CardObject(Path("config.json"), content)))
    found = [x for x in differences(read, tower) if x != ("trained_windows", (0, 0), None)]
    assert not found
    assert content["image_size"] == 32


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (SwinV2(**SWIN, window=4), "not windows=.4, 4. with fixed_shifts=None; try timm"),
        (SwinV2(**SWIN, windows=(3, 3), fixed_shifts=(1, 0)), "for images of 32 px has windows"),
        (RelativeViT(**ROPE, num_classes=5), "its DINOv3 has no classifier"),
        (RelativeViT(**VIT, rope=Rope()), r"its DINOv3 has no Rope\("),
        (RelativeViT(**BEIT, bias="block", num_classes=5), "classifies by pool='mean' alone"),
        (RelativeViT(**VIT, bias="block"), "has qkv_bias='qv', this RelativeViT qkv_bias='all'"),
        (ViT(**DINO, num_classes=5), "DINOv2: its model has pool='cls_mean'"),
        (ViT(**DINO, activation="swiglu"), "no gated MLP of mlp_dim=48"),
        (
            ViT(**{**DINO, "mlp_dim": 52}),
            "a whole number of widths, not mlp_dim=52 beside width=24",
        ),
    ],
)
def test_what_transformers_lacks(tower: Any, message: str):
    with pytest.raises(WeightsError, match=message):
        config_of("transformers", tower, CARD)


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("mobilenetv4_conv_aa_medium", MobileNetV4("conv_medium", anti_alias="average")),
        ("efficientnet_b1", EfficientNet("B1", num_classes=7)),
        ("swinv2_tiny_window8_256", SwinV2("T", window=8)),
        ("swin_tiny_patch4_window7_224", Swin("T", trained_windows=(7, 4, 2, 1))),
        ("beit_base_patch16_224", RelativeViT(768, 12, 12, patch=16, bias="block",
                                               qkv_bias="qv", layer_scale=0.1, pool="mean",
                                               norm_pooled=True)),
    ],
)  # fmt: skip
def test_timm_by_its_name(name: str, tower: Any):
    content = config_of("timm", tower, CARD, (), (), name)["config.json"]
    assert content["architecture"] == name
    sized = isinstance(tower, (Swin, RelativeViT))
    assert content["model_args"] == ({"img_size": [32, 32]} if sized else {})


def test_timm_for_images_in_a_rectangle():
    wide = dataclasses.replace(CARD, size=(32, 64), resized=(36, 72))
    content = config_of("timm", ViT("Ti/16", class_position=True, num_classes=7), wide)
    assert content["config.json"]["model_args"]["img_size"] == [32, 64]


@pytest.mark.parametrize(
    ("name", "tower", "message"),
    [
        ("resnet50", ResNet(18), "timm's resnet50 has depth=50, but this ResNet has depth=18"),
        ("resnetaa50", ResNet(50), "has anti_alias='average', but this ResNet has anti_alias='n"),
        ("ecaresnet50d", ResNet(50), "--architecture: architecture is 'ecaresnet50d': it has"),
        ("resnet51", ResNet(50), "'resnet51', which no tower here is known to compute"),
        ("vit_base_patch16_224", ResNet(50), "has constructor='ViT', but this ResNet"),
        ("vit_base_patch16_224", ViT("B/32", class_position=True), "has patch=16, but this ViT"),
        ("tf_efficientnet_b0", EfficientNet("B0"), "has padding='same', but this EfficientNet"),
        ("swin_tiny_patch4_window7_224", Swin("T"), r"windows=\(7, 4, 2, 1\), but this"),
        (
            "swin_tiny_patch4_window7_224",
            Swin("T", windows=(4, 4, 2, 1), trained_windows=(7, 0, 0, 0)),
            r"windows=\(\(7, 7\), \(4, 4\), \(2, 2\), \(1, 1\)\), but",
        ),
        ("mobilenetv4_conv_small", MobileNetV4("conv_small", 0.5), "has width_multiplier=1.0, but"),
    ],
)
def test_another_name_of_timm_is_refused(name: str, tower: Any, message: str):
    with pytest.raises(WeightsError, match=message):
        config_of("timm", tower, CARD, (), (), name)
