"""Texts in lower case without punctuation, as SigLIP and CLIPA were trained on."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence

from vision.data.tokenize import Tokenizer, TokenRows

_WITHOUT_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


@dataclasses.dataclass(frozen=True)
class Canonical(TokenRows):
    """Another tokenizer's rows of texts in lower case, without ASCII punctuation.

    Underscores become spaces, and runs of whitespace one space, as in big_vision and open_clip;
    transformers removes underscores.

    Attributes:
      tokenizer: of the texts.
      punctuation: whether punctuation stays.
    """

    tokenizer: Tokenizer
    punctuation: bool = False

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

    def split(self, text: str) -> list[int]:
        if not self.punctuation:
            text = text.translate(_WITHOUT_PUNCTUATION)
        return self.tokenizer.split(" ".join(text.lower().split()))

    def join(self, ids: Sequence[int]) -> str:
        return self.tokenizer.join(ids)
