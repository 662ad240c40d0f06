"""A tokenizer with one id per word of a closed vocabulary, for languages with a small grammar."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Annotated

from vision.config.ranges import Ge, NonEmpty, checked
from vision.config.repeated import first_repeated
from vision.data.tokenize import TokenRows

UNKNOWN = 3
_SPECIALS = ("<pad>", "<bos>", "<eos>", "<unknown>")
_WORDS = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, repr=False)
@checked
class WordTokenizer(TokenRows):
    """Words in lower case, without punctuation; every word beyond the vocabulary is one id.

    Ids are 0 pad, 1 bos, 2 eos, 3 unknown, then the words in order.

    Attributes:
      words: the vocabulary, lower case, each once.
      length: tokens of a row.
    """

    words: NonEmpty[tuple[str, ...]]
    length: Annotated[int, Ge(3)] = 32

    def __post_init__(self) -> None:
        for word in self.words:
            if not _WORDS.fullmatch(word) or word != word.lower():
                raise ValueError(f"words: {word!r} is not one word in lower case")
        if len(set(self.words)) < len(self.words):
            twice = first_repeated(self.words)
            raise ValueError(f"words: {twice!r} is given twice")

    def __repr__(self) -> str:
        return f"WordTokenizer({len(self.words)} words, length={self.length})"

    @property
    def vocab_size(self) -> int:
        return len(_SPECIALS) + len(self.words)

    def split(self, text: str) -> list[int]:
        return [self._ids.get(word, UNKNOWN) for word in _WORDS.findall(text.lower())]

    def join(self, ids: Sequence[int]) -> str:
        return " ".join((*_SPECIALS, *self.words)[i] for i in ids)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: len(_SPECIALS) + i for i, word in enumerate(self.words)}
