"""The convolutional tower that a config.json of transformers is of."""

from __future__ import annotations

from typing import Any

from vision.config.modes import Config
from vision.config.specs import spec
from vision.models.convnext import ConvNeXt
from vision.models.resnet import BASIC, STAGES, ResNet
from vision.weights.cards import CardObject
from vision.weights.mapping import WeightsError
from vision.weights.transformers_keys import check_keys, whole

TYPES = ("resnet", "convnext", "convnextv2")
_BACKBONE = ("out_features", "out_indices", "stage_names", "_out_features", "_out_indices")


def convolutional_tower(card: CardObject, kind: str) -> Config:
    """A ``ResNet`` or ``ConvNeXt``.

    Args:
      card: the file.
      kind: its ``model_type``, of ``TYPES``.

    Raises:
      WeightsError: it is of another model, or a key is not known.
    """
    return _resnet(card) if kind == "resnet" else _convnext(card, kind)


def _resnet(card: CardObject) -> Config:
    sizes = ("embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act")
    switches = ("downsample_in_first_stage", "downsample_in_bottleneck")
    check_keys(card, (*sizes, *switches, *_BACKBONE))
    card.choice("hidden_act", {"relu": ""}, "")
    for key in switches:
        if card.values.get(key):
            raise card.error(key, "moves strides, which no ResNet here does")
    basic = card.choice("layer_type", {"basic": "basic", "bottleneck": ""}, "") == "basic"
    depths = whole(card, "depths", (3, 4, 6, 3))
    found = [d for d, n in STAGES.items() if n == depths and (d in BASIC) == basic]
    if not found:
        raise card.error("depths", "are those of no ResNet here")
    (stem,) = card.numbers("embedding_size", (64,), 1)
    widths = whole(card, "hidden_sizes", (256, 512, 1024, 2048))
    multiplier = stem / 64
    if widths != tuple(int(stem) * (1 if basic else 4) * 2**i for i in range(4)):
        raise card.error("hidden_sizes", "do not double from the stem's, as those of ResNets here")
    return spec(ResNet, depth=found[0], width_multiplier=multiplier)


def _convnext(card: CardObject, kind: str) -> Config:
    known = ("patch_size", "num_stages", "hidden_sizes", "depths", "hidden_act", "layer_norm_eps")
    check_keys(card, (*known, "layer_scale_init_value", *_BACKBONE))
    card.choice("hidden_act", {"gelu": ""}, "")
    depths = whole(card, "depths", (3, 3, 9, 3))
    if card.values.get("num_stages") not in (None, len(depths)):
        raise card.error("num_stages", f"is not the number of depths {depths}")
    patch = card.sides("patch_size", 4)
    if patch[0] != patch[1]:
        raise card.error("patch_size", "is not square, as patches here are")
    (scale,) = card.numbers("layer_scale_init_value", (1e-6,), 1)
    return spec(
        ConvNeXt,
        depths=depths,
        dims=whole(card, "hidden_sizes", (96, 192, 384, 768)),
        stem_stride=patch[0],
        layer_scale=scale if kind == "convnext" and scale > 0 else None,
        grn=kind == "convnextv2",
        final_epsilon=card.numbers("layer_norm_eps", (1e-12,), 1)[0],
    )


def convolutional_config(tower: ResNet | ConvNeXt) -> dict[str, Any]:
    """What ``convolutional_tower`` reads, for a tower.

    Raises:
      WeightsError: transformers has no class for it; the field is named.
    """
    if isinstance(tower, ResNet):
        _require(tower, stem="imagenet", downsample="strided", groups=1, group_width=64)
        _require(tower, squeeze=False, anti_alias="none")
        basic = tower.depth in BASIC
        width = int(64 * tower.width_multiplier)
        return {
            "model_type": "resnet",
            "embedding_size": width,
            "hidden_sizes": [width * (1 if basic else 4) * 2**i for i in range(4)],
            "depths": list(STAGES[tower.depth]),
            "layer_type": "basic" if basic else "bottleneck",
            "hidden_act": "relu",
        }
    _require(tower, norm_epsilon=1e-6)
    if tower.grn and tower.layer_scale is not None:
        raise WeightsError("transformers: its ConvNeXt V2 (grn=True) has no layer_scale")
    depths, dims = tower.resolved()
    scale = {} if tower.grn else {"layer_scale_init_value": tower.layer_scale or 0.0}
    return {
        "model_type": "convnextv2" if tower.grn else "convnext",
        "patch_size": tower.stem_stride,
        "num_stages": len(depths),
        "hidden_sizes": list(dims),
        "depths": list(depths),
        "hidden_act": "gelu",
        "layer_norm_eps": tower.final_epsilon or tower.norm_epsilon,
        **scale,
    }


def class_prefix(tower: ResNet | ConvNeXt) -> str:
    """Of its classes' names in transformers."""
    return "ResNet" if isinstance(tower, ResNet) else "ConvNextV2" if tower.grn else "ConvNext"


def _require(tower: ResNet | ConvNeXt, **required: Any) -> None:
    for field, value in required.items():
        if getattr(tower, field) != value:
            raise WeightsError(
                f"transformers: its {type(tower).__name__} has {field}={value!r}, this one "
                f"{field}={getattr(tower, field)!r}; try timm"
            )
