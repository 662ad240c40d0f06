"""JSON objects with a checksum of their own, in files that people and other programs read too.

The last key of an object is ``_crc32``: eight hexadecimal digits over the text before it. A text
without it is an older one, or written by hand, and is read as it is.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

_KEY = "_crc32"
_END = re.compile(r',\s*"_crc32": "([0-9a-f]{8})"\s*\}$')
# What one changed bit can make of the name.
_DAMAGED_END = re.compile(r',\s*"[^"]{0,8}": "[0-9a-f]{8}"\s*\}$')


class NotAsWrittenError(ValueError):
    """A text is not what was written; the message says how one knows."""


def seal(row: Mapping[str, Any], indent: int | None = None, allow_nan: bool = True) -> str:
    """The row as JSON with its checksum; options are those of ``json.dumps``."""
    text = json.dumps({**row, _KEY: ""}, indent=indent, allow_nan=allow_nan)
    head = text[: text.rindex(",")]
    return text.replace(f'"{_KEY}": ""', f'"{_KEY}": "{zlib.crc32(head.encode()):08x}"')


def unseal(text: str) -> tuple[dict[str, Any], bool]:
    """The row, and whether it had a checksum.

    Raises:
      NotAsWrittenError: no JSON object, or another one than was written.
    """
    text = text.strip()
    end = _END.search(text)
    if end is not None and end[1] != f"{zlib.crc32(text[: end.start()].encode()):08x}":
        raise NotAsWrittenError("its checksum differs")
    try:
        row = json.loads(text)
    except ValueError as error:
        raise NotAsWrittenError(f"it is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise NotAsWrittenError("it is no JSON object")
    if end is None and (_KEY in row or _DAMAGED_END.search(text)):
        raise NotAsWrittenError("its checksum is damaged")
    row.pop(_KEY, None)
    return row, end is not None
