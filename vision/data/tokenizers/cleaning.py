"""What image-text models do to a caption before it is split into tokens."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable

# What ftfy leaves alone: printable ASCII that spells no HTML entity.
_PLAIN = re.compile(r"[\t\n\r -%'-~]*\Z")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def mend(text: str) -> str:
    """``text`` mended with ftfy and with HTML entities resolved twice, as CLIP and open_clip do.

    Raises:
      ImportError: the text is more than printable ASCII, and ftfy is not installed.
    """
    if _PLAIN.match(text):
        return text.strip()
    return html.unescape(html.unescape(_ftfy()(text))).strip()


def one_line(text: str) -> str:
    """Every run of whitespace as one space, and none at the ends."""
    return " ".join(text.split())


def without_punctuation(text: str) -> str:
    """``text`` without the 32 ASCII signs."""
    return text.translate(_NO_PUNCTUATION)


def _ftfy() -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError as error:
        raise ImportError(
            "texts beyond plain ASCII are mended with ftfy here: pip install 'ftfy>=6.3,<7'"
        ) from error
    return ftfy.fix_text
