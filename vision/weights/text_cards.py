"""The tokenizer of weights, from the files beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vision.config.specs import build
from vision.data.tokenize import Tokenizer
from vision.data.tokenizers.canonical import Canonical, Lower, SiglipCanonical
from vision.data.tokenizers.clip import ClipTokenizer
from vision.data.tokenizers.huggingface import HuggingFaceTokenizer
from vision.weights import hub, zoo
from vision.weights.cards import CardObject, read_card
from vision.weights.mapping import WeightsError

_CONFIG, _VOCABULARY = "tokenizer_config.json", "tokenizer.json"
# Class of transformers, without Fast: which of the file's tokens begin and end a row. None: no
# token; a switch: the file says whether.
_FRAMES: dict[str, tuple[str | None, str | None]] = {
    "CLIPTokenizer": ("bos_token", "eos_token"),
    "BertTokenizer": ("cls_token", "sep_token"),
    "RobertaTokenizer": ("cls_token", "sep_token"),
    "XLMRobertaTokenizer": ("cls_token", "sep_token"),
    "SiglipTokenizer": (None, "eos_token"),
    "T5Tokenizer": (None, "eos_token"),
    "GemmaTokenizer": ("bos_token", "eos_token"),
    "Siglip2Tokenizer": ("bos_token", "eos_token"),
}
_SWITCHES = ("GemmaTokenizer", "Siglip2Tokenizer")


def read_tokenizer(source: str) -> Tokenizer | None:
    """The tokenizer of a source of ``InitFrom``; None where the weights read no text.

    Its rows are those of the library, of any caption (tests/data/test_captions_of_originals.py):
    open_clip mends and cleans texts before every tokenizer, transformers never does.

    Raises:
      WeightsError: a file is missing, or a kind of tokenizer is not known here.
    """
    scheme, _, text = source.partition(":")
    if scheme == "open_clip":
        return _open_clip(text)
    if scheme == "transformers":
        return _transformers(text)
    if scheme == zoo.SCHEME:
        tokenizer = zoo.tokenizer(zoo.config(text))
        return None if tokenizer is None else build(tokenizer)
    return None


def _open_clip(text: str) -> Tokenizer | None:
    path = hub.beside("open_clip", text, "open_clip_config.json")
    if path is None:
        return None
    texts = read_card(path).part("model_cfg").part("text_cfg")
    if not texts.values:
        return None
    length = texts.sides("context_length", 77)[0]
    if texts.values.get("tokenizer_mode") is not None:
        raise texts.error("tokenizer_mode", "is not known here")
    options = texts.part("tokenizer_kwargs")
    options.check_keys(("clean",))
    name = texts.values.get("hf_tokenizer_name")
    cleaners = {"canonicalize": "canonicalize", "lower": "lower", "whitespace": "whitespace"}
    clean = options.choice("clean", cleaners, "whitespace" if name else "lower")
    if name is None or name == "":
        if clean == "whitespace":
            raise options.error("clean", "keeps capitals, which CLIP's own tokenizer has none of")
        return ClipTokenizer(
            length=length, clean="canonicalize" if clean == "canonicalize" else "lower"
        )
    local = Path(text).expanduser().exists()
    # In a local folder the tokenizer is beside the weights, whatever its name.
    tokenizer = _hugging_face("open_clip", text if local else str(name), length)
    return Canonical(
        tokenizer,
        punctuation=clean != "canonicalize",
        lower=clean != "whitespace",
        mend=True,
    )


def _transformers(text: str) -> Tokenizer | None:
    path = hub.beside("transformers", text, _CONFIG)
    if path is None:
        return None
    config = read_card(path)
    model = hub.beside("transformers", text, "config.json")
    sizes = read_card(model).part("text_config") if model is not None else config
    # Files of T5 and Gemma say 10^30.
    longest_stated = config.values.get("model_max_length")
    longest = longest_stated if type(longest_stated) is int and longest_stated < 2**20 else 64
    length = sizes.sides("max_position_embeddings", longest)[0]
    tokenizer = _hugging_face("transformers", text, length)
    kind = _kind(config)
    if kind == "SiglipTokenizer":
        return SiglipCanonical(tokenizer)
    lower = kind in _SWITCHES and config.values.get("do_lower_case", kind == "Siglip2Tokenizer")
    return Lower(tokenizer) if lower else tokenizer


def _hugging_face(scheme: str, text: str, length: int) -> Tokenizer:
    config = hub.beside(scheme, text, _CONFIG)
    if config is None:
        raise WeightsError(f"{text} has no {_CONFIG}, which its tokenizer is read from")
    card = read_card(config)
    kind = _kind(card)
    vocabulary = hub.beside(scheme, text, _VOCABULARY)
    if vocabulary is None:
        raise WeightsError(f"{text} has no {_VOCABULARY}, which its tokenizer is read from")
    begin, end = _FRAMES[kind]
    if kind in _SWITCHES:
        begin = begin if card.values.get("add_bos_token", True) else None
        end = end if card.values.get("add_eos_token", kind == "Siglip2Tokenizer") else None
    # CLIP pads with its end-of-text token, which its causal tower never attends to; for ours,
    # padding is token 0.
    pad = _token_with_id(vocabulary, 0) if kind == "CLIPTokenizer" else _token(card, "pad_token")
    tokenizer: Any = HuggingFaceTokenizer(
        path=str(vocabulary),
        length=length,
        pad=pad,
        bos=None if begin is None else _token(card, begin),
        eos=None if end is None else _token(card, end),
    )
    return tokenizer


def _kind(card: CardObject) -> str:
    name = card.values.get("tokenizer_class")
    kind = name.removesuffix("Fast") if isinstance(name, str) else ""
    if kind not in _FRAMES:
        raise card.error("tokenizer_class", f"is none of {', '.join(_FRAMES)}")
    return kind


def _token_with_id(vocabulary: Path, number: int) -> str:
    card = read_card(vocabulary)
    words = card.part("model").part("vocab").values
    word = next((word for word, i in words.items() if i == number), None)
    if word is None:
        raise card.error("model", f"has no token number {number} in its vocab")
    return word


def _token(card: CardObject, key: str) -> str:
    value: Any = card.values.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if not isinstance(value, str):
        raise card.error(key, "is no token")
    return value
