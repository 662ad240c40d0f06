"""The byte-pair encoder of CLIP: the same ids as openai/CLIP and open_clip."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from vision.config.ranges import Ge, checked
from vision.data import files
from vision.data.source import DataError
from vision.data.tokenize import TokenRows
from vision.data.tokenizers.cleaning import mend, one_line, without_punctuation
from vision.data.tokenizers.merges import merge

VOCABULARY = Path(__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
NUM_MERGES = 49152 - 256 - 2
# The texts that stand for bos and eos.
_SPECIAL = {
    "open_clip": ("<start_of_text>", "<end_of_text>"),
    "openai": ("<|startoftext|>", "<|endoftext|>"),
}
_END = "</w>"
_CACHED_WORDS = 2**16
# Letters are written L and digits N, as the classes of a shadow of the text: Python's own
# patterns have no Unicode categories. Everything else stands for itself.
_SHADOW = re.compile(r"L+|N|[^ LN]+")
# Ignoring case as the original does makes a difference for one letter, the long s.
_CONTRACTION = "'(?:s|t|re|ve|m|ll|d)"


@dataclasses.dataclass(frozen=True)
@checked
class ClipTokenizer(TokenRows):
    """CLIP's tokenizer: lower case, 49,408 ids, padded with 0.

    Text is mended with ftfy, HTML entities are resolved twice, whitespace is collapsed, case is
    lost. The texts ``<start_of_text>`` and ``<end_of_text>`` in a caption become those tokens, as
    in open_clip; for OpenAI's code they are ``<|startoftext|>`` and ``<|endoftext|>``. ftfy is only
    needed for texts beyond plain ASCII. What is a letter is up to Python's Unicode tables, which
    may be a few years behind those of the package ``regex``.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021, and its code.

    Attributes:
      path: the published ``bpe_simple_vocab_16e6.txt.gz``; None for the copy that is shipped.
      length: 77 for the published models, 248 for those stretched to long captions.
      clean: ``canonicalize`` takes ASCII punctuation out of the mended text, and makes underscores
        spaces, as open_clip does for CLIPA.
      special: whose texts for the two special tokens a caption may hold.

    Raises:
      DataError: on first use, when the file is missing or is not that vocabulary.
    """

    path: str | None = None
    length: Annotated[int, Ge(3)] = 77
    clean: Literal["lower", "canonicalize"] = "lower"
    special: Literal["open_clip", "openai"] = "open_clip"

    @property
    def vocab_size(self) -> int:
        return 512 + NUM_MERGES + 2

    @property
    def pad_id(self) -> int:
        return 0

    @property
    def bos_id(self) -> int:
        return 512 + NUM_MERGES

    @property
    def eos_id(self) -> int:
        return 512 + NUM_MERGES + 1

    def split(self, text: str) -> list[int]:
        text = mend(text)
        if self.clean == "canonicalize":
            text = without_punctuation(text.replace("_", " "))
        pieces = words(one_line(text).lower(), self._pattern)
        return [token for piece in pieces for token in self._word(piece)]

    def join(self, ids: Sequence[int]) -> str:
        symbols = [*self._symbols, *_SPECIAL[self.special]]
        unprintable = {c: byte for byte, c in byte_characters().items()}
        text = "".join(symbols[i] for i in ids)
        data = bytes(unprintable[c] for c in text)
        return data.decode("utf-8", errors="replace").replace(_END, " ").strip()

    @functools.cached_property
    def _symbols(self) -> tuple[str, ...]:
        """Every id's characters, without the two special tokens."""
        single = tuple(byte_characters().values())
        return (*single, *(c + _END for c in single), *("".join(pair) for pair in self._pairs))

    @functools.cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        path = VOCABULARY if self.path is None else Path(self.path)
        hint = "give the path of bpe_simple_vocab_16e6.txt.gz as published with CLIP"
        try:
            lines = gzip.decompress(files.read_bytes(str(path))).decode("utf-8").split("\n")
        except DataError as error:
            raise DataError(f"{error}; {hint}") from error
        except OSError as error:
            raise DataError(f"{path}: {error}; {hint}") from error
        except (EOFError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}; {hint}") from error
        pairs = [tuple(line.split(" ")) for line in lines[1 : 1 + NUM_MERGES]]
        if "#version" not in lines[0] or len(pairs) < NUM_MERGES:
            raise DataError(f"{path}: not a list of {NUM_MERGES} merges; {hint}")
        if any(len(pair) != 2 for pair in pairs):
            raise DataError(f"{path}: a line is not a pair of symbols; {hint}")
        return [(left, right) for left, right in pairs]

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        return special_pattern(_SPECIAL[self.special])

    @functools.cached_property
    def _word(self) -> Callable[[str], tuple[int, ...]]:
        ids = {symbol: i for i, symbol in enumerate(self._symbols)}
        try:
            merges = {(ids[a], ids[b]): ids[a + b] for a, b in self._pairs}
        except KeyError as error:
            raise DataError(f"{self.path}: symbol {error} is used before it is made") from error
        bos, eos = _SPECIAL[self.special]
        special = {bos: (self.bos_id,), eos: (self.eos_id,)}
        first = {byte: i for i, byte in enumerate(byte_characters())}

        @functools.lru_cache(_CACHED_WORDS)
        def word(text: str) -> tuple[int, ...]:
            if text in special:
                return special[text]
            single = [first[byte] for byte in text.encode("utf-8")]
            single[-1] += 256
            return tuple(merge(single, merges))

        return word


def special_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """What ends the run of characters before it: special tokens, and English contractions."""
    return re.compile("|".join([*map(re.escape, names), _CONTRACTION]), re.IGNORECASE)


def words(text: str, special: re.Pattern[str]) -> list[str]:
    """Clean text in pieces: runs of letters, single digits, runs of other characters.

    What matches ``special`` where a piece begins is a piece of its own: contractions (``'s``,
    ``'ll``) and the two special tokens.
    """
    shadow = text.translate(_ASCII) if text.isascii() else "".join(map(_shadow, text))
    pieces, at = [], 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        match = special.match(text, at) or _SHADOW.match(shadow, at)
        assert match is not None
        pieces.append(text[at : match.end()])
        at = match.end()
    return pieces


def _shadow(character: str) -> str:
    if character == " ":
        return " "
    kind = unicodedata.category(character)[0]
    return kind if kind in "LN" else "-"


_ASCII = {c: _shadow(chr(c)) for c in range(128)}


@functools.cache
def byte_characters() -> dict[int, str]:
    """A printable character for every byte, in the order of the ids: printable bytes stand for
    themselves, the others for the characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    pairs = [(byte, chr(byte)) for byte in printable]
    return dict(pairs + [(byte, chr(256 + i)) for i, byte in enumerate(others)])
