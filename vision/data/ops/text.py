"""Captions to tokens."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.data.ops.base import Example, noted
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer, captions_of, room, row_of

TooLong = Literal["truncate", "error", "window"]


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """Replaces a caption by its tokens.

    The result is ``output``, int32 [L], and ``{output}_cut``, int32: how many tokens of the
    caption did not fit, 0 for most, so that losses can be counted in every batch. The caption
    itself is removed, since texts cannot go to a device; ``_draws`` notes which of several it was
    (``caption``) and where the row begins in it (``start``).

    A record without a usable caption raises DataError.

    Attributes:
      tokenizer: from ``vision.data.tokenizers``.
      feature: a text, or several in a list or array; UTF-8 bytes will do.
      output: name of the tokens.
      pick: of several captions, a ``random`` one or the ``first``.
      too_long: captions that do not fit keep their beginning (``truncate``), keep a random run of
        tokens (``window``), or are bad records (``error``).
    """

    tokenizer: Tokenizer
    feature: str = "caption"
    output: str = "text"
    pick: Literal["random", "first"] = "random"
    too_long: TooLong = "truncate"

    def __post_init__(self) -> None:
        if self.pick not in ("random", "first"):
            raise ValueError(f"pick={self.pick!r}: valid values are 'random' and 'first'")
        if self.too_long not in ("truncate", "error", "window"):
            raise ValueError(
                f"too_long={self.too_long!r}: valid policies are 'truncate', 'error' and 'window'"
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"Tokenize: no feature {self.feature!r} among {names}; set Tokenize.feature"
            )
        captions = captions_of(example[self.feature], self.feature)
        chosen = 0
        if self.pick == "random" and len(captions) > 1:
            chosen = int(rng.integers(len(captions)))
        ids = self.tokenizer.split(captions[chosen])
        cut = max(0, len(ids) - room(self.tokenizer))
        if cut and self.too_long == "error":
            raise DataError(
                f"{self.feature!r} has {len(ids)} tokens, {cut} more than fit into length="
                f"{self.tokenizer.length}; raise it, or set too_long to 'truncate' or 'window'"
            )
        start = int(rng.integers(cut + 1)) if cut and self.too_long == "window" else 0
        rest = {k: v for k, v in example.items() if k != self.feature}
        rest[self.output] = row_of(self.tokenizer, ids, start)
        rest[f"{self.output}_cut"] = np.int32(cut)
        return noted(rest, "Tokenize", caption=chosen, start=start)
