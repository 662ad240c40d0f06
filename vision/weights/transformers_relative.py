"""The tower of a config.json of transformers' DINOv3 or BEiT, and the config of a tower."""

from __future__ import annotations

from typing import Any

from vision.config.modes import Config
from vision.config.specs import spec
from vision.models.relative_vit import RelativeViT
from vision.models.rope import Rope
from vision.weights.cards import CardObject
from vision.weights.mapping import WeightsError
from vision.weights.transformers_keys import activation, check_keys, flag

_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "patch_size"),
)
# Of training, of masked pretraining and of segmentation.
_DINOV3_HARMLESS = ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")
_BEIT_HARMLESS = (
    *("vocab_size", "pool_scales", "use_auxiliary_head", "auxiliary_loss_weight", "add_fpn"),
    *("auxiliary_channels", "auxiliary_num_convs", "auxiliary_concat_input"),
    *("semantic_loss_ignore_index", "out_indices", "segmentation_indices"),
)


def relative_tower(card: CardObject, kind: str) -> Config:
    """``spec(RelativeViT, ...)`` of a card whose ``model_type`` is ``dinov3_vit`` or ``beit``.

    Raises:
      WeightsError: a key is not known, or has a value that no tower here has.
    """
    patch = card.sides("patch_size", 16)
    if patch[0] != patch[1]:
        raise card.error("patch_size", "is not square, as patches here are")
    fields = _dinov3(card) if kind == "dinov3_vit" else _beit(card)
    return spec(RelativeViT, patch=patch[0], **fields)


def _dinov3(card: CardObject) -> dict[str, Any]:
    flags = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp")
    known = (*_SIZES, *flags, "rope_theta", "layerscale_value", "num_register_tokens")
    check_keys(card, (*known, *_DINOV3_HARMLESS, "rope_parameters"))
    if card.values.get("rope_parameters") is not None:
        raise card.error("rope_parameters", "is not read here; rope_theta is")
    for key in ("proj_bias", "mlp_bias"):
        if not flag(card, key, True):
            raise card.error(key, "leaves out biases that the tower here has")
    biases = tuple(flag(card, f"{name}_bias", name != "key") for name in ("query", "key", "value"))
    kinds = {(True, True, True): "all", (True, False, True): "qv", (False,) * 3: "none"}
    if biases not in kinds:
        raise card.error("query_bias", "is another than value_bias, or key_bias stands alone")
    gated = flag(card, "use_gated_mlp", False)
    if gated and card.values.get("hidden_act", "gelu") != "silu":
        raise card.error("hidden_act", "is not silu, with which gates here are")
    registers = card.values.get("num_register_tokens", 0)
    return {
        **_sizes(card, 384, 1536, 6, 1e-5),
        "activation": "swiglu" if gated else activation(card, "gelu"),
        "qkv_bias": kinds[biases],
        "layer_scale": float(card.numbers("layerscale_value", (1.0,), 1)[0]),
        "registers": card.sides("num_register_tokens", 1)[0] if registers else 0,
        "rope": spec(
            Rope,
            coordinates="centered",
            temperature=float(card.numbers("rope_theta", (100.0,), 1)[0]),
            halves=True,
        ),
    }


def _beit(card: CardObject) -> dict[str, Any]:
    positions = ("use_relative_position_bias", "use_shared_relative_position_bias")
    known = ("use_absolute_position_embeddings", "use_mean_pooling", "layer_scale_init_value")
    check_keys(card, (*_SIZES, *positions, *known, *_BEIT_HARMLESS))
    own, shared = (flag(card, key, False) for key in positions)
    if own and shared:
        raise card.error(positions[1], "stands beside biases of the blocks, of which one is here")
    classes = card.values.get("architectures") or ()
    if any("MaskedImage" in str(c) or "Segmentation" in str(c) for c in classes):
        raise card.error("architectures", "has a head that no tower here has")
    scale = float(card.numbers("layer_scale_init_value", (0.1,), 1)[0])
    absolute = flag(card, "use_absolute_position_embeddings", False)
    if own or shared or absolute:
        card.check_square("image_size")
    mean = flag(card, "use_mean_pooling", True)
    return {
        **_sizes(card, 768, 3072, 12, 1e-12),
        "activation": activation(card, "gelu"),
        "bias": "block" if own else "shared" if shared else "none",
        "posemb": "tokens" if absolute else "none",
        "qkv_bias": "qv",
        "layer_scale": scale if scale > 0 else None,
        "pool": "mean" if mean else "cls",
        "norm_pooled": mean,
    }


def _sizes(card: CardObject, width: int, mlp: int, heads: int, epsilon: float) -> dict[str, Any]:
    return {
        "width": card.sides("hidden_size", width)[0],
        "depth": card.sides("num_hidden_layers", 12)[0],
        "heads": card.sides("num_attention_heads", heads)[0],
        "mlp_dim": card.sides("intermediate_size", mlp)[0],
        "norm_epsilon": card.numbers("layer_norm_eps", (epsilon,), 1)[0],
    }


def relative_config(tower: RelativeViT, side: int) -> dict[str, Any]:
    """What ``relative_tower`` reads, for a tower and square images of this side.

    Raises:
      WeightsError: transformers has no class for it; the field is named.
    """
    _require(tower, attention_norm=False, mlp_norm=False, pre_norm=False, class_token=True)
    if tower.activation not in _NAMES:
        raise WeightsError(f"transformers: no name for activation={tower.activation!r}")
    sizes = {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_dim or 4 * tower.width,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.heads,
        "hidden_act": _NAMES[tower.activation],
        "layer_norm_eps": tower.norm_epsilon,
        "patch_size": tower.patch,
        "image_size": side,
    }
    return {**sizes, **(_beit_config(tower) if tower.rope is None else _dinov3_config(tower))}


_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
_NAMES |= {"swiglu": "silu"}


def _dinov3_config(tower: RelativeViT) -> dict[str, Any]:
    _require(tower, bias="none", posemb="none", pool="cls", norm_pooled=False)
    rope = tower.rope
    if rope is None or rope != Rope("centered", rope.temperature, halves=True):
        raise WeightsError(f"transformers: its DINOv3 has no {rope}; try timm")
    if tower.layer_scale is None:
        raise WeightsError("transformers: its DINOv3 has a layer_scale; try timm")
    if tower.num_classes:
        raise WeightsError("transformers: its DINOv3 has no classifier: num_classes=None")
    return {
        "model_type": "dinov3_vit",
        "use_gated_mlp": tower.activation == "swiglu",
        "query_bias": tower.qkv_bias != "none",
        "key_bias": tower.qkv_bias == "all",
        "value_bias": tower.qkv_bias != "none",
        "layerscale_value": tower.layer_scale,
        "num_register_tokens": tower.registers,
        "rope_theta": rope.temperature,
    }


def _beit_config(tower: RelativeViT) -> dict[str, Any]:
    mean = tower.pool == "mean"
    _require(tower, registers=0, qkv_bias="qv", norm_pooled=mean)
    if tower.posemb == "patches" or tower.activation == "swiglu":
        raise WeightsError(
            f"transformers: its BEiT has no posemb={tower.posemb!r} with "
            f"activation={tower.activation!r}; try timm"
        )
    if tower.num_classes and not mean:
        raise WeightsError("transformers: its BEiT classifies by pool='mean' alone; try timm")
    return {
        "model_type": "beit",
        "use_relative_position_bias": tower.bias == "block",
        "use_shared_relative_position_bias": tower.bias == "shared",
        "use_absolute_position_embeddings": tower.posemb == "tokens",
        "use_mean_pooling": mean,
        "layer_scale_init_value": tower.layer_scale or 0.0,
    }


def _require(tower: RelativeViT, **required: Any) -> None:
    for field, value in required.items():
        if getattr(tower, field) != value:
            raise WeightsError(
                f"transformers: its class has {field}={value!r}, this RelativeViT "
                f"{field}={getattr(tower, field)!r}; try timm"
            )
