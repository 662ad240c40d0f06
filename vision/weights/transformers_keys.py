"""Keys of config.json files of transformers that change nothing, and what several readers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision.weights.cards import CardObject

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


def activation(card: CardObject, default: str) -> Any:
    """The activation under ``hidden_act``."""
    return card.choice("hidden_act", ACTIVATIONS, default)


def check_keys(card: CardObject, known: tuple[str, ...]) -> None:
    """Raises unless every key is one of ``known`` or changes no number of a tower."""
    for key, value in card.values.items():
        if value is None or key in known:
            continue
        if key in _REQUIRED:
            if value != _REQUIRED[key]:
                raise card.error(key, f"is not {_REQUIRED[key]!r}, as towers here have it")
        elif key not in _HARMLESS:
            raise card.error(key, "is not known here, and may change what the tower computes")


def flag(card: CardObject, key: str, default: bool) -> bool:
    """The truth value of a key."""
    value = card.values.get(key, default)
    if not isinstance(value, bool):
        raise card.error(key, "is neither true nor false")
    return value


def whole(card: CardObject, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """The positive whole numbers of a key."""
    value: Any = card.values.get(key)
    value = default if value is None else value
    if not isinstance(value, (list, tuple)) or not all(type(x) is int and x > 0 for x in value):
        raise card.error(key, "are not whole numbers")
    return tuple(value)
