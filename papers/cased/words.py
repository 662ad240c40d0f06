"""Candidate names in captions: words, made singular, without what no class is called."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

NOTHING = "object"
"""What an image is called whose captions hold no candidate."""

_NOISE = re.compile(
    r"<[^>]*>|https?://\S+|www\.\S+|\.(?:jpe?g|png|gif|bmp|webp|svg|pdf|html?)\b", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+")
_PICTURES = (
    "image photo picture thumbnail logo symbol clipart portrait painting illustration icon profile"
)
# Of three letters or more; shorter words are never candidates.
_CLOSED_CLASS = (
    "about above across after against all along among and another any are around because been "
    "before behind being below beneath beside between beyond both but can could did does down "
    "during each either for from had has have her here hers him his how into its itself may might "
    "more most much must neither nor not off once one only onto our out over per shall she should "
    "since some such than that the their them then there these they this those though through "
    "toward under until upon very was were what when where whether which while who whom whose why "
    "will with within without would you your"
)
_NO_NAMES = frozenset(f"{_PICTURES} {_CLOSED_CLASS}".split())


def singular(word: str) -> str:
    """A lower-case English word without its plural's ending, by rule: ``"berries"``, ``"foxes"``.

    Words in -ss, -us and -is stay. Irregular plurals stay too.
    """
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def words(text: str) -> tuple[str, ...]:
    """Words of a text that may be names, in their order, lower-case and singular.

    Left out are ``<tokens>``, addresses, file extensions, whatever is no letter, words of fewer
    than three letters, words for pictures ("photo", "logo") and those of closed classes ("the").
    """
    found = [each.lower() for each in _WORD.findall(_NOISE.sub(" ", text))]
    made = (singular(word) for word in found if len(word) > 2 and word not in _NO_NAMES)
    return tuple(word for word in made if word not in _NO_NAMES)


def candidates(captions: Sequence[Sequence[str]], least: int = 2) -> tuple[str, ...]:
    """Words that captions, each given as its ``words``, hold ``least`` times or more.

    Where none is that frequent, the most frequent ones; ``NOTHING`` where there is no word. They
    come in the order in which they first appear.
    """
    counts = collections.Counter(word for caption in captions for word in caption)
    if not counts:
        return (NOTHING,)
    enough = min(least, max(counts.values()))
    return tuple(word for word, count in counts.items() if count >= enough)
