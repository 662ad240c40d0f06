"""Text to token ids: what a tokenizer is, and how ids become rows.

A row is ``[bos] ids [eos] pad pad ...``, int32, ``length`` long. The tokenizers themselves are in
``vision.data.tokenizers``.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vision.data.source import DataError

log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """A frozen dataclass that pickles; the same text gives the same ids everywhere."""

    @property
    def length(self) -> int:
        """Tokens of a row, ``bos`` and ``eos`` included."""
        ...

    @property
    def vocab_size(self) -> int:
        """Every id lies in 0..vocab_size - 1."""
        ...

    @property
    def pad_id(self) -> int: ...

    @property
    def bos_id(self) -> int | None:
        """First token of every row; None for none."""
        ...

    @property
    def eos_id(self) -> int | None:
        """Last token of every row before the padding; None for none."""
        ...

    def split(self, text: str) -> list[int]:
        """Ids of a text of any length, without bos, eos and padding."""
        ...

    def join(self, ids: Sequence[int]) -> str:
        """Inverse of ``split``, as far as the tokenizer keeps the text."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Rows int32 [B, L] of texts; long ones are cut, and the log says how many."""
        ...

    def decode(self, rows: np.ndarray) -> list[str]:
        """Texts of rows [B, L], without bos, eos and padding."""
        ...


PAD, BOS, EOS = 0, 1, 2
"""Special ids of the tokenizers that are made here."""


class TokenRows:
    """``encode`` and ``decode`` for dataclasses that can ``split`` and ``join``.

    Special ids are ``PAD``, ``BOS`` and ``EOS`` unless a subclass overrides them.
    """

    @property
    def pad_id(self) -> int:
        return PAD

    @property
    def bos_id(self) -> int | None:
        return BOS

    @property
    def eos_id(self) -> int | None:
        return EOS

    def encode(self: Tokenizer, texts: Sequence[str]) -> np.ndarray:
        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts, not one text")
        ids_of_texts = [self.split(text) for text in texts]
        rows = [row_of(self, ids) for ids in ids_of_texts]
        if cut := sum(len(ids) > room(self) for ids in ids_of_texts):
            log.warning(
                "%d of %d texts are longer than length=%d tokens and were cut",
                *(cut, len(ids_of_texts), self.length),
            )
        return np.stack(rows) if rows else np.zeros((0, self.length), np.int32)

    def decode(self: Tokenizer, rows: np.ndarray) -> list[str]:
        return [self.join(content(self, row.tolist())) for row in np.atleast_2d(rows)]

    def __getstate__(self) -> dict[str, Any]:
        # Vocabularies and caches are read again in a worker: they are large, or do not pickle.
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore


@dataclasses.dataclass(frozen=True)
class WrappedTokenizer(TokenRows):
    """Another tokenizer's rows; subclasses change what they say.

    Attributes:
      tokenizer: the other one.
    """

    tokenizer: Tokenizer

    @property
    def length(self) -> int:
        return self.tokenizer.length

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_id

    @property
    def bos_id(self) -> int | None:
        return self.tokenizer.bos_id

    @property
    def eos_id(self) -> int | None:
        return self.tokenizer.eos_id

    def cleaned(self, text: str) -> str:
        """The text that the other tokenizer splits."""
        return text

    def split(self, text: str) -> list[int]:
        return self.tokenizer.split(self.cleaned(text))

    def join(self, ids: Sequence[int]) -> str:
        return self.tokenizer.join(ids)


def room(tokenizer: Tokenizer) -> int:
    """How many ids a row has space for beside bos and eos."""
    return tokenizer.length - (tokenizer.bos_id is not None) - (tokenizer.eos_id is not None)


def row_of(tokenizer: Tokenizer, ids: Sequence[int], start: int = 0) -> np.ndarray:
    """A row int32 [L]: as many ids as fit, from position ``start`` on."""
    row = np.full(tokenizer.length, tokenizer.pad_id, np.int32)
    inner = list(ids[start : start + room(tokenizer)])
    if tokenizer.bos_id is not None:
        inner.insert(0, tokenizer.bos_id)
    if tokenizer.eos_id is not None:
        inner.append(tokenizer.eos_id)
    row[: len(inner)] = inner
    return row


def content(tokenizer: Tokenizer, row: Sequence[int]) -> list[int]:
    """The ids of a row between bos and eos."""
    ids = list(row)
    if ids and tokenizer.bos_id is not None and ids[0] == tokenizer.bos_id:
        ids = ids[1:]
    if tokenizer.eos_id in ids:
        return ids[: ids.index(tokenizer.eos_id)]
    while ids and ids[-1] == tokenizer.pad_id:
        ids.pop()
    return ids


def check_length(length: int, fewest: int) -> None:
    """Raises ValueError where a row has no room for a single id."""
    if length < fewest:
        raise ValueError(f"length={length}: must be at least {fewest}")


def load_model(
    path: str, package: str, versions: str, what: str, load: Callable[[Any], Any]
) -> Any:
    """What ``load(package)`` makes of the file ``path``.

    Args:
      path: of the tokenizer's file.
      package: to import.
      versions: of the package, as pip takes them.
      what: the file should be, for messages.
      load: from the imported package to a model.

    Raises:
      ImportError: without the package.
      DataError: the file is missing, or is something else.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{path}: needs a package: pip install '{package}{versions}'") from error
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give path {what}")
    try:
        return load(module)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise DataError(f"{path}: not {what}: {error}") from error


def captions_of(value: Any, feature: str = "caption") -> list[str]:
    """One text or several, as a list of at least one.

    Raises:
      DataError: no text, an empty list, bytes that are no UTF-8, or text that is no Unicode.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    captions = value if isinstance(value, list | tuple) else [value]
    if not captions:
        raise DataError(f"{feature!r} holds no caption; leave the record out, or add one")
    return [_text(caption, feature) for caption in captions]


def _text(value: Any, feature: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{feature!r} is not UTF-8: {error}") from error
    if not isinstance(value, str):
        raise DataError(f"{feature!r} holds {type(value).__name__} {value!r:.40}, not a text")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise DataError(f"{feature!r} holds half a surrogate pair, which is no character")
    return str(value)
