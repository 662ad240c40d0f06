"""Tokenizers to choose from; see ``vision.data.tokenize`` for what they have in common."""

from vision.data.tokenizers.byte_pair import (
    BytePairTokenizer,
    load_byte_pair,
    save_byte_pair,
    train_byte_pair,
    train_on_source,
)
from vision.data.tokenizers.canonical import Canonical, Lower, SiglipCanonical
from vision.data.tokenizers.clip import ClipTokenizer
from vision.data.tokenizers.huggingface import HuggingFaceTokenizer
from vision.data.tokenizers.prefixed import Prefixed
from vision.data.tokenizers.sentencepiece import SentencePieceTokenizer
from vision.data.tokenizers.words import WordTokenizer

__all__ = [
    "BytePairTokenizer",
    "Canonical",
    "ClipTokenizer",
    "HuggingFaceTokenizer",
    "Lower",
    "Prefixed",
    "SentencePieceTokenizer",
    "SiglipCanonical",
    "WordTokenizer",
    "load_byte_pair",
    "save_byte_pair",
    "train_byte_pair",
    "train_on_source",
]
