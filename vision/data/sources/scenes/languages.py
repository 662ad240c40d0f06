"""Captions in invented languages: every word of the grammar has one foreign word, and every
second language turns the order of the words in a sentence around. Translation loses nothing."""

from __future__ import annotations

import functools
import re

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.captions import OPENERS, THING
from vision.data.sources.scenes.draws import turn

_FUNCTION_WORDS = (
    *("a", "an", "the", "and", "with", "background", "is", "to", "of", "in", "at", "on"),
    *("above", "below", "inside", "front", "behind", "larger", "smaller", "than", "has"),
    *("same", "as", "colour", "shape", "remove", "add", "change", "move", "turn", "into"),
    *("make", "position", "size", "texture", "variant"),
)
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@functools.lru_cache(maxsize=1)
def lexicon() -> tuple[str, ...]:
    """Every word of captions and modifiers, each once, in a fixed order."""
    groups = (
        *(words.SHAPES, words.COLOURS, words.SIZES, words.TEXTURES, words.VARIANTS),
        *(words.BACKGROUNDS, (THING,), _FUNCTION_WORDS),
    )
    phrases = (*words.POSITIONS, *OPENERS)
    spoken = [word for group in groups for word in group]
    spoken += [word for phrase in phrases for word in phrase.split()]
    return tuple(dict.fromkeys(spoken))


@functools.lru_cache(maxsize=64)
def _dictionary(language: int) -> dict[str, str]:
    syllables = [first + second for first in _CONSONANTS for second in _VOWELS]
    count = len(syllables)
    offset, step = turn(0, "language", language, count * count)
    foreign = {}
    for k, word in enumerate(lexicon()):
        first, second = divmod((offset + step * k) % (count * count), count)
        foreign[word] = syllables[first] + syllables[second]
    return foreign


def translate(text: str, language: int, back: bool = False) -> str:
    """``text`` in invented language 1, 2, ... (0 is English), or back from it to English.

    Raises:
      ValueError: a word outside the grammar; the message names it.
    """
    if language < 0:
        raise ValueError(f"language={language!r} must not be negative")
    if language == 0:
        return text
    table = _dictionary(language)
    if back:
        table = {foreign: word for word, foreign in table.items()}
    sentences = []
    for sentence in text.split(". "):
        tokens = re.findall(r"[^\s,]+|,", sentence)
        spoken = []
        for token in tokens:
            if token != "," and token not in table:
                raise ValueError(f"{token!r} is not a word of the grammar")
            spoken.append(token if token == "," else table[token])
        if language % 2:
            spoken.reverse()
        sentences.append(" ".join(spoken).replace(" ,", ","))
    return ". ".join(sentences)
