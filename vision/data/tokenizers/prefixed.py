"""Token rows that begin with the source of the text."""

from __future__ import annotations

import dataclasses

from vision.data.tokenize import WrappedTokenizer


@dataclasses.dataclass(frozen=True)
class Prefixed(WrappedTokenizer):
    """Another tokenizer's rows, beginning with a token of the text's source: ``[source] ids ...``.

    The token stands in place of ``bos``, beyond the other tokenizer's ids, so its vector is learned
    with everything else and means nothing but the source. In a mixture each part tokenizes with
    its own ``source``; at test the one for class prompts is chosen (Saito et al., Prefix
    Conditioning Unifies Language and Label Supervision, 2023). The text tower needs a
    ``vocab_size`` that holds all sources.

    Attributes:
      tokenizer: of the texts.
      source: of these texts, 0..sources - 1.
      sources: how many there are.
    """

    source: int = 0
    sources: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.source < self.sources:
            raise ValueError(
                f"source={self.source}: must lie in 0..{self.sources - 1} (sources={self.sources})"
            )

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size + self.sources

    @property
    def bos_id(self) -> int:
        return self.tokenizer.vocab_size + self.source
