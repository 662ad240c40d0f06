"""Golden JSON that is short: what fits into a line stands on one."""

from __future__ import annotations

import json
import textwrap
from typing import Any

WIDTH = 100


def to_text(value: Any, indent: str = "") -> str:
    """``value`` as JSON, lists of numbers and short texts several to a line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= WIDTH or not isinstance(value, (dict, list)):
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {to_text(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    if any(isinstance(item, (dict, list)) for item in value):
        items = [deeper + to_text(item, deeper) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    # A blank within a text would be a place to break, too; no-break spaces stand in for them.
    words = (json.dumps(item, ensure_ascii=False).replace(" ", "\0") for item in value)
    lines = textwrap.wrap(
        ", ".join(words), WIDTH - len(deeper), break_long_words=False, break_on_hyphens=False
    )
    return "[\n" + "\n".join(deeper + line for line in lines).replace("\0", " ") + f"\n{indent}]"
