"""The byte-pair encoder of CLIP: the same ids as openai/CLIP and open_clip."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from vision.config.ranges import Ge, checked
from vision.data.source import DataError
from vision.data.tokenize import TokenRows
from vision.data.tokenizers.merges import merge

VOCABULARY = Path(__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
NUM_MERGES = 49152 - 256 - 2
_BOS, _EOS = "<start_of_text>", "<end_of_text>"
_END = "</w>"
_CACHED_WORDS = 2**16
# What ftfy leaves alone: printable ASCII that spells no HTML entity.
_PLAIN = re.compile(r"[\t\n\r -%'-~]*\Z")
# Letters are written L and digits N, as the classes of a shadow of the text: Python's own
# patterns have no Unicode categories. Everything else stands for itself.
_SHADOW = re.compile(r"L+|N|[^ LN]+")
# Ignoring case as the original does makes a difference for one letter, the long s.
_SPECIAL = re.compile(rf"{_BOS}|{_EOS}|'(?:s|t|re|ve|m|ll|d)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
@checked
class ClipTokenizer(TokenRows):
    """CLIP's tokenizer: lower case, 49,408 ids, padded with 0.

    Text is mended with ftfy, HTML entities are resolved, whitespace is collapsed, case is lost.
    The texts ``<start_of_text>`` and ``<end_of_text>`` in a caption become those tokens, as in
    the original. ftfy is only needed for texts beyond plain ASCII. What is a letter is up to
    Python's Unicode tables, which may be a few years behind those of the package ``regex``.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021, and its code.

    Attributes:
      path: the published ``bpe_simple_vocab_16e6.txt.gz``; None for the copy that is shipped.
      length: 77 for the published models, 248 for those stretched to long captions.

    Raises:
      DataError: on first use, when the file is missing or is not that vocabulary.
    """

    path: str | None = None
    length: Annotated[int, Ge(3)] = 77

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
        return [token for word in words(clean(text)) for token in self._word(word)]

    def join(self, ids: Sequence[int]) -> str:
        symbols = [*self._symbols, _BOS, _EOS]
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
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}; {hint}") from error
        except (EOFError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}; {hint}") from error
        pairs = [tuple(line.split(" ")) for line in lines[1 : 1 + NUM_MERGES]]
        if "#version" not in lines[0] or len(pairs) < NUM_MERGES:
            raise DataError(f"{path}: not a list of {NUM_MERGES} merges; {hint}")
        if any(len(pair) != 2 for pair in pairs):
            raise DataError(f"{path}: a line is not a pair of symbols; {hint}")
        return [(left, right) for left, right in pairs]

    @functools.cached_property
    def _word(self) -> Callable[[str], tuple[int, ...]]:
        ids = {symbol: i for i, symbol in enumerate(self._symbols)}
        try:
            merges = {(ids[a], ids[b]): ids[a + b] for a, b in self._pairs}
        except KeyError as error:
            raise DataError(f"{self.path}: symbol {error} is used before it is made") from error
        special = {_BOS: (self.bos_id,), _EOS: (self.eos_id,)}
        first = {byte: i for i, byte in enumerate(byte_characters())}

        @functools.lru_cache(_CACHED_WORDS)
        def word(text: str) -> tuple[int, ...]:
            if text in special:
                return special[text]
            single = [first[byte] for byte in text.encode("utf-8")]
            single[-1] += 256
            return tuple(merge(single, merges))

        return word


def clean(text: str) -> str:
    """``text`` as CLIP sees it: mended, unescaped, on one line, in lower case."""
    if not _PLAIN.match(text):
        text = _ftfy()(text)
        text = html.unescape(html.unescape(text))
    return " ".join(text.split()).lower()


def words(text: str) -> list[str]:
    """Clean text in pieces: runs of letters, single digits, runs of other characters.

    English contractions (``'s``, ``'ll``) and the two special tokens are pieces of their own
    where a piece begins.
    """
    shadow = text.translate(_ASCII) if text.isascii() else "".join(map(_shadow, text))
    pieces, at = [], 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        match = _SPECIAL.match(text, at) or _SHADOW.match(shadow, at)
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


def _ftfy() -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError as error:
        raise ImportError(
            "CLIP's tokenizer mends texts beyond plain ASCII with ftfy: pip install 'ftfy>=6.3,<7'"
        ) from error
    return ftfy.fix_text
