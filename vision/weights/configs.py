"""Config files with which other libraries rebuild a model of ours."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vision.data.tokenizers.clip import ClipTokenizer
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.relative_vit import RelativeViT
from vision.models.resnet import ResNet
from vision.models.swin_v2 import SwinV2
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.weights.architectures import (
    compare_with_timm,
    image_arguments,
    timm_architecture,
)
from vision.weights.cards import FILES, written
from vision.weights.mapping import WeightsError
from vision.weights.names import names_of
from vision.weights.preprocessing import Preprocessing
from vision.weights.transformers_convolutional import class_prefix, convolutional_config
from vision.weights.transformers_relative import relative_config
from vision.weights.transformers_swin import swin_config

log = logging.getLogger(__name__)

_ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
}


def config_of(
    to: str,
    model: Any,
    card: Preprocessing,
    labels: Sequence[str] = (),
    learned: Collection[str] = (),
    architecture: str | None = None,
) -> dict[str, Any]:
    """Name of a file to its content.

    Args:
      to: ``timm``, ``open_clip`` or ``transformers``.
      model: ours.
      card: its preprocessing.
      labels: names of the classes.
      learned: the learned parameters of a ``Dual``'s loss: ``log_scale``, ``bias``.
      architecture: timm's name; None to derive it from the tower.

    Raises:
      WeightsError: the library cannot express it.
    """
    if to == "timm":
        return {FILES["timm"]: _timm(model, card, labels, architecture)}
    if isinstance(model, Dual) and "log_scale" not in learned:
        raise WeightsError(f"{to} keeps a temperature with its models; this loss learns none")
    if to == "open_clip":
        config = {"model_cfg": _open_clip(model, card, learned)}
        return {FILES["open_clip"]: config | {"preprocess_cfg": written("open_clip", card)}}
    return {
        "config.json": _transformers(model, card, labels, learned),
        FILES["transformers"]: written("transformers", card),
    }


def _timm(
    model: Any, card: Preprocessing, labels: Sequence[str], architecture: str | None
) -> dict[str, Any]:
    if isinstance(model, Dual):
        raise WeightsError("timm has no image-text models: export to open_clip or transformers")
    arguments: dict[str, Any] = {}
    if architecture is None:
        architecture, arguments = timm_architecture(model, card.size)
    else:
        arguments = image_arguments(architecture, card.size)
    compare_with_timm(architecture, arguments, model)
    if len(card.mean) != 3:
        arguments["in_chans"] = len(card.mean)
    names = names_of("timm", model, {}).entries
    heads = [entry.theirs[0] for entry in names if entry.ours == "params.head.kernel"]
    first = next(entry.theirs[0] for entry in names if entry.ours.endswith(".kernel"))
    classes = model.num_classes or 0
    return {
        "architecture": architecture,
        "num_classes": classes,
        **({"label_names": list(labels)} if classes and len(labels) == classes else {}),
        "model_args": arguments,
        "pretrained_cfg": {
            **written("timm", card),
            "num_classes": classes,
            "fixed_input_size": "img_size" in arguments,
            "first_conv": first.removesuffix(".weight"),
            "classifier": heads[0].removesuffix(".weight") if heads else None,
        },
    }


def _check(library: str, model: Any, **required: Any) -> None:
    """Raises unless fields of a tower have the only values that a library's class has."""
    for field, value in required.items():
        if getattr(model, field) != value:
            raise WeightsError(
                f"{library}: its model has {field}={value!r}, this {type(model).__name__} "
                f"{field}={getattr(model, field)!r}"
            )


def _side(card: Preprocessing, library: str) -> int:
    if card.size[0] != card.size[1]:
        raise WeightsError(f"{library} builds its towers for square images, not {card.size}")
    return card.size[0]


def _check_clip(library: str, dual: Dual) -> tuple[ViT, TextTransformer]:
    image, text = dual.image, dual.text
    if not isinstance(image, ViT) or not isinstance(text, TextTransformer):
        raise WeightsError(f"{library} has CLIP models of a ViT and a TextTransformer only")
    _check(library, dual, image_projection=True, bias=False)
    _check(library, image, pre_norm=True, pool="cls", class_position=True, registers=0)
    _check(library, image, norm_epsilon=1e-5, layer_scale=None, norm_pooled=False)
    _check(library, text, causal=True, post_norm=False, norm_epsilon=1e-5, segments=0)
    if text.pool != "argmax":
        _check(library, text, pool="last")
        if text.vocab_size != ClipTokenizer().vocab_size:
            log.warning(
                "%s reads a text at the first token with the largest id, and this tower at its "
                "last token (pool='last'): the same only where the token that ends a text has the "
                "largest id of all, %d",
                *(library, text.vocab_size - 1),
            )
    _check(library, text, activation=image.activation, layer_scale=None)
    return image, text


def _open_clip(model: Any, card: Preprocessing, learned: Collection[str]) -> dict[str, Any]:
    if not isinstance(model, Dual):
        raise WeightsError("open_clip keeps image-text models; export a tower alone to timm")
    image, text = _check_clip("open_clip", model)
    sizes = image.resolved()
    if image.activation not in ("gelu", "quick_gelu"):
        raise WeightsError(f"open_clip's own ViT has no activation={image.activation!r}")
    mlp_dim = text.mlp_dim or 4 * text.width
    return {
        "embed_dim": model.width,
        **({"quick_gelu": True} if image.activation == "quick_gelu" else {}),
        **({"init_logit_bias": 0.0} if "bias" in learned else {}),
        "vision_cfg": {
            "image_size": _side(card, "open_clip"),
            "layers": sizes.depth,
            "width": sizes.width,
            "head_width": sizes.width // sizes.heads,
            "patch_size": sizes.patch,
            # Half a unit keeps open_clip, which rounds the product down, at our number.
            "mlp_ratio": (sizes.mlp_dim + 0.5) / sizes.width,
        },
        "text_cfg": {
            "context_length": text.context,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.depth,
            "mlp_ratio": (mlp_dim + 0.5) / text.width,
        },
    }


def _transformers(
    model: Any, card: Preprocessing, labels: Sequence[str], learned: Collection[str]
) -> dict[str, Any]:
    if isinstance(model, Dual):
        return _transformers_dual(model, card, learned)
    if isinstance(model, (ResNet, ConvNeXt)):
        kind = class_prefix(model)
        return {
            **_head(kind, model, labels),
            **convolutional_config(model),
            "num_channels": len(card.mean),
        }
    channels = {"num_channels": len(card.mean)}
    if isinstance(model, RelativeViT):
        kind = "Beit" if model.rope is None else "DINOv3ViT"
        config = relative_config(model, _side(card, "transformers"))
        return {**_head(kind, model, labels), **config, **channels}
    if isinstance(model, SwinV2):
        config = swin_config(model, _side(card, "transformers"))
        return {**_head("Swinv2", model, labels), **config, **channels}
    if not isinstance(model, ViT):
        raise WeightsError(f"transformers: no name map for a {type(model).__name__}; try timm")
    if model.layer_scale is not None:
        return _dinov2(model, card, labels)
    _check("transformers", model, pool="cls", class_position=True, registers=0, norm_pooled=False)
    _check("transformers", model, pre_norm=False, qkv_bias=True)
    return {"model_type": "vit", **_head("ViT", model, labels), **_image_config(model, card)}


def _dinov2(model: ViT, card: Preprocessing, labels: Sequence[str]) -> dict[str, Any]:
    pool = "cls_mean" if model.num_classes else "cls"
    _check("transformers' DINOv2", model, pool=pool, class_position=True, norm_pooled=False)
    _check("transformers' DINOv2", model, pre_norm=False, register_positions=False)
    sizes, gated = model.resolved(), model.activation == "swiglu"
    ratio = 4 if gated else sizes.mlp_dim / sizes.width
    # Two thirds, rounded up to a multiple of eight.
    if gated and sizes.mlp_dim != (int(8 * sizes.width / 3) + 7) // 8 * 8:
        raise WeightsError(f"transformers' DINOv2 has no gated MLP of mlp_dim={sizes.mlp_dim}")
    if not float(ratio).is_integer():
        raise WeightsError(
            f"transformers' DINOv2 has MLPs of a whole number of widths, not mlp_dim="
            f"{sizes.mlp_dim} beside width={sizes.width}"
        )
    config = _image_config(model if not gated else model.clone(activation="gelu"), card)
    del config["intermediate_size"]
    registers = "_with_registers" if model.registers else ""
    kind = "Dinov2WithRegisters" if model.registers else "Dinov2"
    return {
        "model_type": f"dinov2{registers}",
        **_head(kind, model, labels),
        **config,
        "mlp_ratio": int(ratio),
        "qkv_bias": model.qkv_bias,
        "use_swiglu_ffn": gated,
        "layerscale_value": model.layer_scale,
        **({"num_register_tokens": model.registers} if model.registers else {}),
    }


def _head(kind: str, model: Any, labels: Sequence[str]) -> dict[str, Any]:
    if not model.num_classes:
        return {"architectures": [f"{kind}Model"]}
    class_names = labels if len(labels) == model.num_classes else range(model.num_classes)
    return {
        "architectures": [f"{kind}ForImageClassification"],
        "id2label": {str(i): str(name) for i, name in enumerate(class_names)},
        "label2id": {str(name): i for i, name in enumerate(class_names)},
    }


def _image_config(tower: ViT, card: Preprocessing) -> dict[str, Any]:
    sizes = tower.resolved()
    return {
        **_sizes(sizes.width, sizes.depth, sizes.heads, sizes.mlp_dim, tower),
        "image_size": _side(card, "transformers"),
        "patch_size": sizes.patch,
        "num_channels": len(card.mean),
    }


def _text_config(tower: TextTransformer) -> dict[str, Any]:
    mlp_dim = tower.mlp_dim or 4 * tower.width
    return {
        **_sizes(tower.width, tower.depth, tower.heads, mlp_dim, tower),
        "vocab_size": tower.vocab_size,
        "max_position_embeddings": tower.context,
    }


def _sizes(width: int, depth: int, heads: int, mlp_dim: int, tower: Any) -> dict[str, Any]:
    if tower.activation not in _ACTIVATIONS:
        raise WeightsError(f"transformers: no name for activation={tower.activation!r}")
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": mlp_dim,
        "hidden_act": _ACTIVATIONS[tower.activation],
        "layer_norm_eps": tower.norm_epsilon,
    }


def _transformers_dual(dual: Dual, card: Preprocessing, learned: Collection[str]) -> dict[str, Any]:
    image, text = dual.image, dual.text
    if isinstance(image, ViT) and isinstance(text, TextTransformer) and image.pool == "map":
        _check("transformers", dual, image_projection=False, bias=True)
        _check("transformers", image, pre_norm=False, layer_scale=None, registers=0)
        _check("transformers", text, causal=False, pool="last", pad_id=None, post_norm=False)
        if dual.width != image.resolved().width or "bias" not in learned:
            raise WeightsError("SigLIP has the width of its image tower, and a loss with a bias")
        return {
            "model_type": "siglip",
            "architectures": ["SiglipModel"],
            "vision_config": _image_config(image, card),
            "text_config": {**_text_config(text), "projection_size": dual.width},
        }
    image, text = _check_clip("transformers", dual)
    # With an eos of 2 the token with the highest number ends a text, as in CLIP's vocabulary.
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": dual.width,
        "vision_config": _image_config(image, card),
        "text_config": {**_text_config(text), **ends},
    }
