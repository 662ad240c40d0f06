"""SentencePiece models, as T5 and SigLIP use them. Needs the package ``sentencepiece``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from vision.data.source import DataError
from vision.data.tokenize import TokenRows, check_length, load_model


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer(TokenRows):
    """Tokens of a SentencePiece ``.model`` file.

    Source: Kudo and Richardson, SentencePiece: A simple and language independent subword
    tokenizer, 2018.

    Attributes:
      path: the model file.
      length: tokens of a row.
      bos: begin rows with the model's bos.
      eos: end rows with the model's eos.
      pad: id of the padding; None for the model's own.

    Raises:
      ImportError: on first use, without the package.
      DataError: on first use, when the file is missing or broken, or lacks a token asked for.
    """

    path: str
    length: int = 64
    bos: bool = False
    eos: bool = True
    pad: int | None = None

    def __post_init__(self) -> None:
        check_length(self.length, 1 + self.bos + self.eos)

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size()

    @property
    def pad_id(self) -> int:
        if self.pad is not None:
            return self.pad
        return self._special("pad", "set pad to the id that the tower was trained with")

    @property
    def bos_id(self) -> int | None:
        return self._special("bos", "set bos=False") if self.bos else None

    @property
    def eos_id(self) -> int | None:
        return self._special("eos", "set eos=False") if self.eos else None

    def split(self, text: str) -> list[int]:
        return list(self._model.encode(text))

    def join(self, ids: Sequence[int]) -> str:
        return self._model.decode(list(ids))

    def _special(self, name: str, way_out: str) -> int:
        token = getattr(self._model, f"{name}_id")()
        if token < 0:
            raise DataError(f"{self.path}: this model has no {name} token; {way_out}")
        return token

    @functools.cached_property
    def _model(self) -> Any:
        return load_model(
            self.path,
            "sentencepiece",
            ">=0.2,<0.3",
            "a SentencePiece model",
            lambda sentencepiece: sentencepiece.SentencePieceProcessor(model_file=self.path),
        )
