"""The tower that a config.json of transformers is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vision.config.modes import Config
from vision.config.specs import spec
from vision.models.dual import Dual
from vision.models.naflex import NaflexViT
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.weights.cards import CardObject
from vision.weights.mapping import WeightsError
from vision.weights.transformers_convolutional import TYPES as CONVOLUTIONAL
from vision.weights.transformers_convolutional import convolutional_tower
from vision.weights.transformers_keys import activation, check_keys
from vision.weights.transformers_relative import relative_tower
from vision.weights.transformers_swin import swin_tower

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
# Where CLIP reads a text: at the first token with the largest id, which ends it.
CLIP_POOL = "argmax"
_TYPES = (
    *("vit", "dinov2", "dinov2_with_registers", "clip", "clip_vision_model", "clip_text_model"),
    *("siglip", "siglip2", "siglip_vision_model", "siglip2_vision_model", "siglip_text_model"),
    *("siglip2_text_model", "bert", "dinov3_vit", "beit", "swinv2", *CONVOLUTIONAL),
)
# Classes whose files have a layer after BERT's first token, and those with masked tokens' logits.
_POOLED = ("Model", "ForPreTraining", "ForNextSentencePrediction", "ForSequenceClassification")
_MASKED = ("ForPreTraining", "ForMaskedLM")


# What is said of model types near those.
_NEAR: Mapping[str, str] = {
    "deit": "a DeiT with a distillation token, which no tower here has; ",
    "swin": "of Swin the files of timm are read, swin_*; ",
    "data2vec-vision": "a BEiT under names of its own, which are not known here; ",
    "dinov3_convnext": "of DINOv3 the vision transformers are read, dinov3_vit; ",
    "vit_mae": "a masked autoencoder, whose encoder timm has as vit_*_patch16_224.mae; ",
}


def transformers_tower(card: CardObject) -> Config:
    """The tower of a ``config.json``: a ``ViT``, a ``TextTransformer`` or a ``Dual``.

    Raises:
      WeightsError: it is of another model, or a key is not known.
    """
    kind = card.values.get("model_type")
    if kind not in _TYPES:
        what = "has no model_type" if kind is None else f"model_type is {str(kind)[:60]!r}"
        hint = _NEAR.get(str(kind), "")
        raise WeightsError(f"{card.path}: {what}: {hint}towers here are {', '.join(_TYPES)}")
    classes = card.values.get("architectures") or ()
    if kind in ("clip_vision_model", "clip_text_model") and any(
        str(name).endswith("WithProjection") for name in classes
    ):
        raise card.error(
            "architectures",
            "projects to the joint space, which a tower alone does not: for what comes before, "
            "write the tower into the config and read it with init_from.compare=False",
        )
    if kind in ("clip", "siglip", "siglip2"):
        _check_classifies(card, classes)
        return _dual(card, kind)
    family = kind.partition("_")[0]
    if kind.endswith("text_model"):
        return _text(card, family)
    if kind == "bert":
        return _bert(card)
    if kind in CONVOLUTIONAL:
        return convolutional_tower(card, kind)
    if kind == "swinv2":
        return swin_tower(card)
    if kind in ("dinov3_vit", "beit"):
        return relative_tower(card, kind)
    return _image(card, family)


def _dual(card: CardObject, kind: str) -> Config:
    known = ("text_config", "vision_config", "projection_dim", "initializer_factor")
    check_keys(card, (*known, "logit_scale_init_value"))
    vision, text = card.part("vision_config"), card.part("text_config")
    image, texts = _image(vision, kind), _text(text, kind)
    if kind == "clip":
        width = card.sides("projection_dim", 512)[0]
        return spec(Dual, image=image, text=texts, width=width)
    own: Any = texts["width"]
    width = text.sides("projection_size", own)[0]
    if width != image["width"]:
        raise text.error("projection_size", f"is not the image tower's width {image['width']}")
    return spec(Dual, image=image, text=texts, width=width, image_projection=False, bias=True)


def _check_classifies(card: CardObject, classes: Any) -> None:
    if any("ImageClass" in str(name) for name in classes):
        raise card.error("architectures", "pools and classifies as no tower here does")


def _image(card: CardObject, kind: str) -> Config:
    dino = kind == "dinov2"
    classes = card.values.get("architectures") or ()
    if kind in ("clip", "siglip", "siglip2"):
        _check_classifies(card, classes)
    known = ("intermediate_size", "patch_size", "qkv_bias", *_SIZES)
    if dino:
        extra = ("mlp_ratio", "layerscale_value", "use_swiglu_ffn", "num_register_tokens")
        known = (*known, *extra)
    check_keys(card, known)
    width = card.sides("hidden_size", 768)[0]
    card.check_square("image_size")
    patches = {"clip": 32, "dinov2": 16 if "num_register_tokens" in card.values else 14}
    patch = card.sides("patch_size", patches.get(kind, 16))
    if patch[0] != patch[1]:
        raise card.error("patch_size", "is not square, as patches here are")
    fields: dict[str, Any] = {"mlp_dim": card.sides("intermediate_size", 3072)[0]}
    if dino:
        fields = _dino(card, width)
        if any("ForImageClassification" in str(c) for c in classes):
            fields["pool"] = "cls_mean"
    epsilons = {"vit": 1e-12, "clip": 1e-5}
    activations = {"clip": "quick_gelu", "siglip": "gelu_tanh", "siglip2": "gelu_tanh"}
    fields = {"activation": activation(card, activations.get(kind, "gelu")), **fields}
    if kind == "clip":
        fields["pre_norm"] = True
    if kind == "siglip2":
        return _naflex(card, width, patch[0], fields)
    if kind == "siglip":
        fields["pool"] = "map"
    else:
        fields["class_position"] = True
    if kind in ("vit", "dinov2") and card.values.get("qkv_bias") is False:
        fields["qkv_bias"] = False
    return spec(
        ViT,
        width=width,
        depth=card.sides("num_hidden_layers", 12)[0],
        heads=card.sides("num_attention_heads", 12)[0],
        patch=patch[0],
        norm_epsilon=card.numbers("layer_norm_eps", (epsilons.get(kind, 1e-6),), 1)[0],
        **fields,
    )


def _naflex(card: CardObject, width: int, patch: int, fields: Mapping[str, Any]) -> Config:
    (count,) = card.numbers("num_patches", (256,), 1)
    side = math.isqrt(int(count))
    if side**2 != count or not side:
        raise card.error("num_patches", "are not those of a square grid")
    return spec(
        NaflexViT,
        width=width,
        depth=card.sides("num_hidden_layers", 12)[0],
        heads=card.sides("num_attention_heads", 12)[0],
        patch=patch,
        grid=(side, side),
        norm_epsilon=card.numbers("layer_norm_eps", (1e-6,), 1)[0],
        **fields,
    )


def _dino(card: CardObject, width: int) -> dict[str, Any]:
    hidden = int(width * card.numbers("mlp_ratio", (4,), 1)[0])
    fields: dict[str, Any] = {"layer_scale": float(card.numbers("layerscale_value", (1.0,), 1)[0])}
    if card.values.get("use_swiglu_ffn") is True:
        # Two thirds, rounded up to a multiple of eight.
        fields |= {"activation": "swiglu", "mlp_dim": (int(hidden * 2 / 3) + 7) // 8 * 8}
    else:
        fields["mlp_dim"] = hidden
    with_registers = card.values.get("model_type") == "dinov2_with_registers"
    if with_registers or "num_register_tokens" in card.values:
        # None is a number of them, too.
        registers = card.values.get("num_register_tokens", 4)
        fields["registers"] = card.sides("num_register_tokens", 4)[0] if registers else 0
    return fields


def _text(card: CardObject, kind: str) -> Config:
    clip = kind == "clip"
    known = ("intermediate_size", "vocab_size", "max_position_embeddings", "projection_size")
    check_keys(card, (*known, *_SIZES))
    # With an id of 2 transformers takes the largest, as the first files had it.
    end, largest = card.values.get("eos_token_id"), card.sides("vocab_size", 49408)[0] - 1
    if clip and end not in (None, 2, largest):
        raise card.error(
            "eos_token_id", f"is not the largest id, {largest}, where towers here read"
        )
    fields: dict[str, Any] = {"pool": CLIP_POOL} if clip else {"causal": False, "pad_id": None}
    return spec(
        TextTransformer,
        vocab_size=card.sides("vocab_size", 49408 if clip else 32000)[0],
        width=card.sides("hidden_size", 512 if clip else 768)[0],
        depth=card.sides("num_hidden_layers", 12)[0],
        heads=card.sides("num_attention_heads", 8 if clip else 12)[0],
        mlp_dim=card.sides("intermediate_size", 2048 if clip else 3072)[0],
        context=card.sides("max_position_embeddings", 77 if clip else 64)[0],
        activation=activation(card, "quick_gelu" if clip else "gelu_tanh"),
        norm_epsilon=card.numbers("layer_norm_eps", (1e-5 if clip else 1e-6,), 1)[0],
        **fields,
    )


def _bert(card: CardObject) -> Config:
    known = ("intermediate_size", "vocab_size", "max_position_embeddings", "type_vocab_size")
    check_keys(card, (*known, *_SIZES))
    classes = card.values.get("architectures") or ("BertModel",)
    kinds = [str(name).removeprefix("Bert") for name in classes]
    return spec(
        TextTransformer,
        vocab_size=card.sides("vocab_size", 30522)[0],
        width=card.sides("hidden_size", 768)[0],
        depth=card.sides("num_hidden_layers", 12)[0],
        heads=card.sides("num_attention_heads", 12)[0],
        mlp_dim=card.sides("intermediate_size", 3072)[0],
        context=card.sides("max_position_embeddings", 512)[0],
        activation=activation(card, "gelu"),
        norm_epsilon=card.numbers("layer_norm_eps", (1e-12,), 1)[0],
        causal=False,
        post_norm=True,
        segments=card.sides("type_vocab_size", 2)[0],
        pool="first",
        pooler=any(kind in _POOLED for kind in kinds),
        masked_head=any(kind in _MASKED for kind in kinds),
    )
