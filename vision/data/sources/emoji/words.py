"""A tokenizer of the words in emoji's names."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Annotated

from vision.config.ranges import Ge, NonEmpty, Unique, checked, one_of
from vision.data.sources.emoji import packed
from vision.data.tokenize import TokenRows
from vision.data.tokenizers.words import WordTokenizer


@dataclasses.dataclass(frozen=True)
@checked
class NameTokenizer(TokenRows):
    """A ``WordTokenizer`` of all words in the names of some emoji, in Unicode's order.

    Names of languages without spaces are one word each.

    Attributes:
      languages: of ``packed.LANGUAGES``.
      groups: of ``packed.GROUPS``: whose emoji.
      length: tokens of a row.
    """

    languages: Unique[NonEmpty[tuple[Annotated[str, one_of(packed.LANGUAGES)], ...]]] = ("en",)
    groups: Unique[NonEmpty[tuple[Annotated[str, one_of(packed.GROUPS)], ...]]] = packed.GROUPS
    length: Annotated[int, Ge(3)] = 12

    @functools.cached_property
    def _words(self) -> WordTokenizer:
        groups = {packed.GROUPS.index(name) for name in self.groups}
        wanted = [k for k, sign in enumerate(packed.index().emoji) if sign.group in groups]
        told = (packed.names(language)[k][0] for language in self.languages for k in wanted)
        words = (word for name in told for word in re.findall(r"\w+", name.lower()))
        return WordTokenizer(tuple(dict.fromkeys(words)), self.length)

    @property
    def vocab_size(self) -> int:
        return self._words.vocab_size

    def split(self, text: str) -> list[int]:
        return self._words.split(text)

    def join(self, ids: Sequence[int]) -> str:
        return self._words.join(ids)
