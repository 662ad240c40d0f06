"""``tokenizer.json`` files of Hugging Face. Needs the package ``tokenizers``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Sequence
from typing import Any

from vision.data.source import DataError
from vision.data.tokenize import TokenRows, check_length, load_model


@dataclasses.dataclass(frozen=True)
class HuggingFaceTokenizer(TokenRows):
    """Tokens of a ``tokenizer.json``; nothing is ever looked up on a hub.

    Rows are framed here, by the names below: truncation, padding and the template of special
    tokens that the file may ask for are not used.

    Attributes:
      path: the JSON file.
      length: tokens of a row.
      pad: the padding token.
      bos: the first token of a row; None for none.
      eos: the last token before the padding; None for none.

    Raises:
      ImportError: on first use, without the package.
      DataError: on first use, when the file is missing or broken, or lacks a token asked for.
    """

    path: str
    length: int = 64
    pad: str = "[PAD]"
    bos: str | None = "[CLS]"
    eos: str | None = "[SEP]"

    def __post_init__(self) -> None:
        check_length(self.length, 1 + (self.bos is not None) + (self.eos is not None))

    @property
    def vocab_size(self) -> int:
        return self._model.get_vocab_size()

    @functools.cached_property
    def pad_id(self) -> int:
        return self._token("pad", self.pad)

    @functools.cached_property
    def bos_id(self) -> int | None:
        return None if self.bos is None else self._token("bos", self.bos)

    @functools.cached_property
    def eos_id(self) -> int | None:
        return None if self.eos is None else self._token("eos", self.eos)

    def split(self, text: str) -> list[int]:
        return self._model.encode(text, add_special_tokens=False).ids

    def join(self, ids: Sequence[int]) -> str:
        return self._model.decode(list(ids), skip_special_tokens=False)

    def _token(self, field: str, name: str) -> int:
        token = self._model.token_to_id(name)
        if token is None:
            marked = [t for t in self._model.get_vocab() if t[:1] in "<["]
            near = difflib.get_close_matches(name, marked, n=3, cutoff=0) or marked[:3]
            raise DataError(
                f"{self.path}: has no token {name!r}; set {field}, for example to one of "
                f"{', '.join(near) or 'its tokens'}"
            )
        return token

    @functools.cached_property
    def _model(self) -> Any:
        model = load_model(
            self.path,
            "tokenizers",
            ">=0.22,<0.24",
            "a tokenizer.json",
            lambda tokenizers: tokenizers.Tokenizer.from_file(self.path),
        )
        model.no_truncation()
        model.no_padding()
        return model
