"""timm's name of a tower: the architecture and the arguments with which timm builds the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.config.specs import build
from vision.models.convnext import ConvNeXt
from vision.models.maxvit import MaxVit
from vision.models.resnet import BASIC, STAGES, ResNet
from vision.models.swin import Swin
from vision.models.vit import ViT
from vision.train.tower import Tower
from vision.weights.agreement import differences
from vision.weights.cards import CardObject
from vision.weights.families.convnext import timm_convnext
from vision.weights.families.units import POINTWISE
from vision.weights.mapping import WeightsError
from vision.weights.timm_cards import swin_tokens, timm_fields, timm_tower

_ACTIVATIONS: Mapping[str, str] = {"gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
# Squeeze-and-excitation, anti-aliasing, basic blocks: a model of timm's that has them; what else it
# has is said by its arguments.
_RESNETS: Mapping[tuple[bool, str, bool], str] = {
    (True, "none", True): "seresnet18",
    (True, "none", False): "seresnet50",
    (True, "average", False): "seresnetaa50d",
    (False, "average", True): "resnetaa34d",
    (False, "average", False): "resnetaa50",
    (False, "blur", True): "resnetblur18",
    (False, "blur", False): "resnetblur50",
}
_STEMS: Mapping[tuple[int, ...], str] = {
    (32, 32): "deep",
    (24, 32): "deep_tiered",
    (64, 64, 128): "deep",
    (48, 64, 128): "deep_tiered",
}
_POOLS: Mapping[str, str] = {"cls": "token", "mean": "avg", "map": "map"}


def timm_architecture(tower: Tower, size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """timm's name of an architecture, and the arguments in which ``tower`` differs from it.

    Args:
      tower: a ``ViT``, ``ResNet`` or ``ConvNeXt``.
      size: (height, width) of its images.

    Raises:
      WeightsError: timm has no such tower, or its name is not known here.
    """
    match tower:
        case ViT():
            return _vit(tower, size)
        case ResNet():
            return _resnet(tower)
        case ConvNeXt():
            return _convnext(tower)
    raise WeightsError(
        f"timm's name of this {type(tower).__name__} is not known here: give it as --architecture, "
        "such as efficientnet_b0"
    )


def image_arguments(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Arguments with which timm builds a model by its name for images of a size.

    Raises:
      WeightsError: no tower here is known to compute what that model does.
    """
    card = CardObject(Path("--architecture"), {"architecture": name})
    of_images = timm_fields(card, "architecture", name).get("size")
    if not isinstance(of_images, list) or tuple(of_images) == size:
        return {}
    return {"img_size": list(size)}


def compare_with_timm(name: str, arguments: Mapping[str, Any], tower: Tower) -> None:
    """Raises unless timm's model, of these arguments, computes what a tower does.

    Raises:
      WeightsError: a field differs; the first is named, with both values.
    """
    # Of what timm makes for a size of images, positions are written as they are, in any grid.
    sized = "img_size" in arguments and isinstance(tower, (Swin, MaxVit))
    kept = {k: v for k, v in arguments.items() if k != "img_size" or sized}
    card = CardObject(Path("config.json"), {"architecture": name, "model_args": kept})
    stated = build(timm_tower(card))
    if isinstance(tower, ViT) and tower.posemb == "sincos2d":  # written as learned ones
        tower = tower.clone(posemb="learned")
    found = list(differences(stated, tower))
    sides = arguments.get("img_size") or timm_fields(card, "architecture", name).get("size")
    for field in ("patch", "window", "windows"):
        theirs, ours = (_shape(each, field, sides) for each in (stated, tower))
        if type(stated) is type(tower) and theirs != ours:
            found.append((field, theirs, ours))
    if found:
        field, theirs, ours = found[0]
        raise WeightsError(
            f"timm's {name} has {field}={theirs!r}, but this {type(tower).__name__} has "
            f"{field}={ours!r}: export with --architecture of another name, or to another library"
        )


def _shape(tower: Tower, field: str, size: Any) -> Any:
    """What a tower for images of a size has under a field of which ``differences`` says nothing."""
    if isinstance(tower, ViT):
        return tower.resolved().patch if field == "patch" else None
    if isinstance(tower, Swin):
        return {"patch": tower.patch, "windows": _windows(tower, size)}.get(field)
    return getattr(tower, field, None)


def _windows(tower: Swin, size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Sides of the windows of each stage, along both axes of images of a size."""
    stages = tower.resolved()
    tokens = [swin_tokens(side, tower.patch, len(stages)) for side in size]
    return tuple(
        tuple(min(stage.window, each) for each in axes)
        for stage, *axes in zip(stages, *tokens, strict=True)
    )


def _vit(tower: ViT, size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    sizes = tower.resolved()
    gated = tower.activation == "swiglu"
    # Arguments in a file are plain values; classes and functions are chosen by the base's name.
    bases = {(1e-6, False): "vit_base_patch16_224", (1e-5, False): "vit_base_patch16_clip_224"}
    bases |= {(1e-6, True): "vit_giant_patch14_dinov2"}
    base = bases.get((tower.norm_epsilon, gated))
    if base is None:
        raise WeightsError(
            f"timm has no name for a ViT with norm_epsilon={tower.norm_epsilon} and "
            f"activation={tower.activation!r}"
        )
    both = tower.registers and tower.has_class_token()
    if both and tower.class_position != tower.register_positions:
        raise WeightsError(
            "timm's registers have positions exactly where its class token has one: "
            f"class_position={tower.class_position}, but register_positions="
            f"{tower.register_positions}"
        )
    if tower.pool not in _POOLS:
        raise WeightsError(f"timm does not pool as pool={tower.pool!r}")
    arguments: dict[str, Any] = {
        "img_size": list(size),
        "patch_size": sizes.patch,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        # Half a unit keeps timm, which rounds the product down, at our number.
        "mlp_ratio": (sizes.mlp_dim * (2 if gated else 1) + 0.5) / sizes.width,
        "qkv_bias": tower.qkv_bias,
        "init_values": tower.layer_scale,
        "class_token": tower.has_class_token(),
        "global_pool": _POOLS[tower.pool],
        "no_embed_class": not (tower.class_position or tower.register_positions),
        "reg_tokens": tower.registers,
        "pre_norm": tower.pre_norm,
        "fc_norm": tower.norm_pooled,
    }
    if tower.activation in _ACTIVATIONS:
        arguments["act_layer"] = _ACTIVATIONS[tower.activation]
    return base, arguments


def _resnet(tower: ResNet) -> tuple[str, dict[str, Any]]:
    if tower.width_multiplier != 1 or tower.stem == "cifar":
        raise WeightsError("timm has no ResNet with width_multiplier or stem='cifar'")
    arguments: dict[str, Any] = {}
    base = f"resnet{tower.depth}"
    if tower.squeeze or tower.anti_alias != "none":
        basic = tower.depth in BASIC
        base = _RESNETS.get((tower.squeeze, tower.anti_alias, basic), "")
        if not base:
            raise WeightsError(
                f"timm has no ResNet of {'basic blocks' if basic else 'bottlenecks'} with "
                f"squeeze={tower.squeeze} and anti_alias={tower.anti_alias!r}"
            )
        arguments |= {"layers": list(STAGES[tower.depth]), "stem_type": "", "stem_width": 64}
        arguments["avg_down"] = False
    elif tower.depth in (10, 14, 269):  # of which timm has others
        base = "resnet18" if tower.depth == 10 else "resnet50"
        arguments["layers"] = list(STAGES[tower.depth])
    if tower.stem == "deep":
        widths = tower.stem_widths or (32, 32)
        if widths not in _STEMS:
            raise WeightsError(f"timm has no ResNet with stem_widths={widths}")
        arguments |= {"stem_type": _STEMS[widths], "stem_width": widths[1]}
    if tower.downsample == "average":
        arguments["avg_down"] = True
    if (tower.groups, tower.group_width) != (1, 64):
        arguments |= {"cardinality": tower.groups, "base_width": tower.group_width}
    return base, arguments


def _convnext(tower: ConvNeXt) -> tuple[str, dict[str, Any]]:
    depths, dims = tower.resolved()
    if tower.final_epsilon not in (None, tower.norm_epsilon):
        raise WeightsError(
            f"timm has no ConvNeXt whose last norm has another epsilon, final_epsilon="
            f"{tower.final_epsilon}, than the others; export to transformers"
        )
    if tower.stem_stride == 2 or tower.stem_stride >= 8:
        raise WeightsError(
            f"timm has no ConvNeXt with stem_stride={tower.stem_stride}: after 2 it halves once "
            "more, and from 8 its last stage is dilated; export with --stablehlo"
        )
    arguments: dict[str, Any] = {
        "depths": list(depths),
        "dims": list(dims),
        "patch_size": tower.stem_stride,
        "ls_init_value": tower.layer_scale,
        "conv_mlp": any(entry.form is POINTWISE for entry in timm_convnext(tower).entries),
    }
    if tower.norm_epsilon != 1e-6:
        arguments["norm_eps"] = tower.norm_epsilon
    return "convnextv2_tiny" if tower.grn else "convnext_tiny", arguments
