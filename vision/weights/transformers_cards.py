"""The tower that a config.json of transformers is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision.config.modes import Config
from vision.config.specs import spec
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.weights.cards import CardObject
from vision.weights.mapping import WeightsError

# Activations by the names that timm and transformers have for them.
ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
# Keys that change no number of a tower in evaluation: names, training, generation of texts, and
# what follows from others.
_HARMLESS = frozenset(
    """
    _name_or_path architectures model_type transformers_version torch_dtype dtype id2label label2id
    num_labels problem_type finetuning_task task_specific_params tokenizer_class return_dict
    output_attentions output_hidden_states use_cache torchscript use_bfloat16 tf_legacy_loss
    attn_implementation _attn_implementation gradient_checkpointing chunk_size_feed_forward
    hidden_dropout_prob attention_probs_dropout_prob attention_dropout dropout drop_path_rate
    classifier_dropout initializer_range initializer_factor initializer_std logit_scale_init_value
    encoder_stride pooler_output_size pooler_act image_size num_channels num_patches
    use_mask_token reshape_hidden_states stage_names out_features out_indices projection_dim
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id max_length min_length
    do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens prefix tie_word_embeddings tie_encoder_decoder is_encoder_decoder
    cross_attention_hidden_size gradient_checkpointing_kwargs directionality
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    """.split()  # noqa: SIM905 - a list would be ninety lines
)
# Keys with the only values that a tower here has; as empty as they are by default.
_REQUIRED: Mapping[str, Any] = {
    "apply_layernorm": True,
    "vision_use_head": True,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
# Where CLIP reads a text: at the first token with the largest id, which ends it.
CLIP_POOL = "argmax"
_TYPES = (
    *("vit", "dinov2", "dinov2_with_registers", "clip", "clip_vision_model", "clip_text_model"),
    *("siglip", "siglip2", "siglip_vision_model", "siglip2_vision_model", "siglip_text_model"),
    *("siglip2_text_model", "bert"),
)
# Classes whose files have a layer after BERT's first token, and those with masked tokens' logits.
_POOLED = ("Model", "ForPreTraining", "ForNextSentencePrediction", "ForSequenceClassification")
_MASKED = ("ForPreTraining", "ForMaskedLM")


def transformers_tower(card: CardObject) -> Config:
    """The tower of a ``config.json``: a ``ViT``, a ``TextTransformer`` or a ``Dual``.

    Raises:
      WeightsError: it is of another model, or a key is not known.
    """
    kind = card.values.get("model_type")
    if kind not in _TYPES:
        what = "has no model_type" if kind is None else f"model_type is {str(kind)[:60]!r}"
        hint = ""
        if kind == "deit":
            hint = "a DeiT with a distillation token, which no tower here has; "
        raise WeightsError(f"{card.path}: {what}: {hint}towers here are {', '.join(_TYPES)}")
    if kind in ("clip", "siglip", "siglip2"):
        return _dual(card, kind)
    family = kind.partition("_")[0]
    if kind.endswith("text_model"):
        return _text(card, family)
    if kind == "bert":
        return _bert(card)
    return _image(card, family)


def _dual(card: CardObject, kind: str) -> Config:
    known = ("text_config", "vision_config", "projection_dim", "initializer_factor")
    _check_keys(card, (*known, "logit_scale_init_value"))
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


def _image(card: CardObject, kind: str) -> Config:
    dino = kind == "dinov2"
    classes = card.values.get("architectures") or ()
    if kind in ("clip", "siglip", "siglip2") and any("ImageClass" in str(c) for c in classes):
        raise card.error("architectures", "pools and classifies as no tower here does")
    known = ("intermediate_size", "patch_size", "qkv_bias", *_SIZES)
    if dino:
        extra = ("mlp_ratio", "layerscale_value", "use_swiglu_ffn", "num_register_tokens")
        known = (*known, *extra)
    _check_keys(card, known)
    width = card.sides("hidden_size", 768)[0]
    patches = {"clip": 32, "dinov2": 16 if "num_register_tokens" in card.values else 14}
    patch = card.sides("patch_size", patches.get(kind, 16))
    if patch[0] != patch[1]:
        raise card.error("patch_size", "is not square, as patches here are")
    fields: dict[str, Any] = {"mlp_dim": card.sides("intermediate_size", 3072)[0]}
    if dino:
        fields = _dino(card, width)
    epsilons = {"vit": 1e-12, "clip": 1e-5}
    activations = {"clip": "quick_gelu", "siglip": "gelu_tanh", "siglip2": "gelu_tanh"}
    fields = {"activation": _activation(card, activations.get(kind, "gelu")), **fields}
    if kind == "clip":
        fields["pre_norm"] = True
    if kind in ("siglip", "siglip2"):
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
        fields["registers"] = card.sides("num_register_tokens", 4)[0]
    return fields


def _text(card: CardObject, kind: str) -> Config:
    clip = kind == "clip"
    known = ("intermediate_size", "vocab_size", "max_position_embeddings", "projection_size")
    _check_keys(card, (*known, *_SIZES))
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
        activation=_activation(card, "quick_gelu" if clip else "gelu_tanh"),
        norm_epsilon=card.numbers("layer_norm_eps", (1e-5 if clip else 1e-6,), 1)[0],
        **fields,
    )


def _bert(card: CardObject) -> Config:
    known = ("intermediate_size", "vocab_size", "max_position_embeddings", "type_vocab_size")
    _check_keys(card, (*known, *_SIZES))
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
        activation=_activation(card, "gelu"),
        norm_epsilon=card.numbers("layer_norm_eps", (1e-12,), 1)[0],
        causal=False,
        post_norm=True,
        segments=card.sides("type_vocab_size", 2)[0],
        pool="first",
        pooler=any(kind in _POOLED for kind in kinds),
        masked_head=any(kind in _MASKED for kind in kinds),
    )


def _activation(card: CardObject, default: str) -> Any:
    return card.choice("hidden_act", ACTIVATIONS, default)


def _check_keys(card: CardObject, known: tuple[str, ...]) -> None:
    for key, value in card.values.items():
        if value is None or key in known:
            continue
        if key in _REQUIRED:
            if value != _REQUIRED[key]:
                raise card.error(key, f"is not {_REQUIRED[key]!r}, as towers here have it")
        elif key not in _HARMLESS:
            raise card.error(key, "is not known here, and may change what the tower computes")
