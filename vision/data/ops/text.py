"""Captions to tokens."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

import numpy as np

from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.ops.base import Example, noted
from vision.data.source import DataError
from vision.data.tokenize import Tokenizer, captions_of, room, row_of

# Full stops and the like where a sentence ends, not inside 3.5 or a name; and line breaks.
_ENDS = re.compile(r"[.!?]+(?=\s|$)|\n")

TooLong = Literal["truncate", "error", "window", "mask"]


@dataclasses.dataclass(frozen=True)
@checked
class SubCaptions:
    """A caption and some sentences of longer ones, drawn without repetition (DreamLIP, 2024).

    The result is a tuple of at most ``count`` texts for ``Tokenize(captions=count, pick="first",
    empty="mask")``. ``_draws`` notes which sentences they are (``sentences``).

    Attributes:
      features: captions to split at full stops and line breaks, each one text or several; they are
        removed.
      whole: a caption that always comes first, one text or the first of several; empty for none.
      count: most texts of the result.
      output: its name.
    """

    features: NonEmpty[tuple[str, ...]] = ("caption_long",)
    whole: str = "caption"
    count: int = 4
    output: str = "caption"

    def __post_init__(self) -> None:
        if self.count < 1 + bool(self.whole):
            raise ValueError(f"count={self.count}: must leave room for a sentence")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        needed = (*self.features, *([self.whole] if self.whole else []))
        if missing := [name for name in needed if name not in example]:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(f"SubCaptions: no feature {missing[0]!r} among {names}")
        sentences = [
            sentence.strip()
            for feature in self.features
            for text in captions_of(example[feature], feature)
            for sentence in _ENDS.split(text)
        ]
        pool = list(dict.fromkeys(sentence for sentence in sentences if sentence))
        first = [captions_of(example[self.whole], self.whole)[0]] if self.whole else []
        drawn = rng.permutation(len(pool))[: self.count - len(first)].tolist()
        texts = (*first, *(pool[i] for i in drawn))
        if not texts:
            raise DataError(f"{self.features[0]!r} has no sentence; leave the record out")
        out = {k: v for k, v in example.items() if k not in self.features}
        return noted(out | {self.output: texts}, "SubCaptions", sentences=tuple(drawn))


@dataclasses.dataclass(frozen=True)
@checked
class Tokenize:
    """Replaces captions by their tokens.

    The result is ``output``, int32 [L], and ``{output}_cut``, int32: how many tokens of the
    caption did not fit, 0 for most, so that losses can be counted in every batch. The texts
    themselves are removed, since they cannot go to a device; ``_draws`` notes which of several it
    was (``caption``) and where the row begins in it (``start``).

    With ``captions`` C the results are [C, L] and [C], ``_draws`` has a tuple of C each, -1 where
    there is no caption, and there is ``{output}_mask`` bool [C]: which captions there are. With a
    policy ``mask`` there is one too, without ``captions`` a single bool: False where the record
    has no caption that can be used. Such rows are all padding, and the record stays: an image
    without a text, which losses leave out and count.

    A record without a usable caption, and no policy for it, raises DataError.

    Attributes:
      tokenizer: from ``vision.data.tokenizers``.
      feature: a text, or several in a list or array; UTF-8 bytes are decoded.
      output: name of the tokens.
      pick: of several captions, ``random`` ones without repetition or the ``first``.
      too_long: captions that do not fit keep their beginning (``truncate``), keep a random run of
        tokens (``window``), are not used (``mask``), or are bad records (``error``).
      empty: captions without a token, and records with an empty list of them, are bad records
        (``error``) or not used (``mask``). Where another caption can be picked instead, it is.
      captions: how many to pick; None for one, without an axis of captions.
    """

    tokenizer: Tokenizer
    feature: str = "caption"
    output: str = "text"
    pick: Literal["random", "first"] = "random"
    too_long: TooLong = "truncate"
    empty: Literal["error", "mask"] = "error"
    captions: Positive[int] | None = None

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"Tokenize: no feature {self.feature!r} among {names}; set Tokenize.feature"
            )
        picked = self._pick(self._texts(example[self.feature]), rng)
        count = self.captions or 1
        if not picked and not self._masks:
            raise DataError(f"{self.feature!r} has no caption with a token; set empty to 'mask'")
        rows = np.full((count, self.tokenizer.length), self.tokenizer.pad_id, np.int32)
        cuts, starts = np.zeros(count, np.int32), [-1] * count
        for row, (_, ids) in enumerate(picked):
            cut = max(0, len(ids) - room(self.tokenizer))
            starts[row] = int(rng.integers(cut + 1)) if cut and self.too_long == "window" else 0
            rows[row] = row_of(self.tokenizer, ids, starts[row])
            cuts[row] = cut
        chosen = [number for number, _ in picked] + [-1] * (count - len(picked))

        out = {k: v for k, v in example.items() if k != self.feature}
        valid = np.asarray(chosen) >= 0
        if self.captions is None:
            out |= {self.output: rows[0], f"{self.output}_cut": cuts[0]}
            if self._masks:
                out[f"{self.output}_mask"] = valid[0]
            return noted(out, "Tokenize", caption=chosen[0], start=starts[0])
        out |= {self.output: rows, f"{self.output}_cut": cuts, f"{self.output}_mask": valid}
        return noted(out, "Tokenize", caption=tuple(chosen), start=tuple(starts))

    @property
    def _masks(self) -> bool:
        return "mask" in (self.too_long, self.empty)

    def _texts(self, value: object) -> list[str]:
        nothing = isinstance(value, list | tuple | np.ndarray) and np.size(value) == 0
        if self.empty == "mask" and (value is None or nothing):
            return []
        return captions_of(value, self.feature)

    def _pick(self, texts: list[str], rng: np.random.Generator) -> list[tuple[int, list[int]]]:
        """Number and ids of at most ``captions`` captions that can be used."""
        remaining, picked = list(range(len(texts))), []
        while remaining and len(picked) < (self.captions or 1):
            draw = self.pick == "random" and len(remaining) > 1
            number = remaining.pop(int(rng.integers(len(remaining))) if draw else 0)
            ids = self.tokenizer.split(texts[number])
            extra = len(ids) - room(self.tokenizer)
            if extra > 0 and self.too_long == "error":
                raise DataError(
                    f"{self.feature!r} has {len(ids)} tokens, {extra} more than fit into length="
                    f"{self.tokenizer.length}; raise it, or set too_long to 'truncate', 'window' "
                    "or 'mask'"
                )
            if ids and (extra <= 0 or self.too_long != "mask"):
                picked.append((number, ids))
        return picked
