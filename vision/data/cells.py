"""Reading a single cell of a table as text, number, list or mapping."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision.data.source import DataError

Cell = Any
"""None, str, bool, int, float, bytes, or a list or mapping of these."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FLAGS = {"true": 1.0, "false": 0.0}


def is_missing(cell: Cell, names: Sequence[str] = ()) -> bool:
    """Absent, empty, null or not a number; ``nan`` in text too, unless it is one of ``names``."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return isinstance(cell, str) and (
        not cell.strip() or (cell.strip().lower() == "nan" and cell not in names)
    )


def shown(cell: Cell) -> str:
    """A cell in an error message, shortened."""
    text = repr(cell)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool | int | float | np.generic):
        return str(cell)
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise DataError(f"{shown(cell)} is not UTF-8 text") from None
    raise DataError(f"{shown(cell)} is not a text")


def as_number(cell: Cell, *, flags: bool = False) -> float:
    """A finite number; with ``flags`` also true and false."""
    if isinstance(cell, bool) or (isinstance(cell, str) and cell.strip().lower() in _FLAGS):
        if not flags:
            raise DataError(f"{shown(cell)} is not a number")
        return _FLAGS[str(cell).strip().lower()]
    if isinstance(cell, str):
        if not _NUMBER.fullmatch(cell.strip()):
            raise DataError(f"{shown(cell)} is not a number")
        cell = float(cell)
    if not isinstance(cell, int | float | np.integer | np.floating):
        raise DataError(f"{shown(cell)} is not a number")
    try:
        number = float(cell)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{shown(cell)} is not finite")
    return number


def as_list(cell: Cell, separator: str) -> list[Cell]:
    """A list as it is; text as a JSON list, or split at ``separator``; a single cell alone."""
    if isinstance(cell, list | tuple | np.ndarray):
        return list(cell)
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("["):
        _refuse_python_list(text)
        value = from_json(text)
        if not isinstance(value, list):
            raise DataError(f"{shown(cell)} is not a list")
        return value
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts]


def as_texts(cell: Cell, separator: str) -> list[Cell]:
    """Sentences: a list as it is; text split at ``separator``, unless it is a JSON list of texts.

    A sentence may begin with a bracket (``[OC] my cat``, ``[2021]``): text is only taken for a
    list when all of it is a JSON list of texts.
    """
    if not isinstance(cell, str):
        return as_list(cell, separator)
    if cell.lstrip().startswith("["):
        _refuse_python_list(cell.strip())
        try:
            value = from_json(cell)
        except DataError:
            value = None
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
    return [part.strip() for part in cell.split(separator)] if separator else [cell]


def _refuse_python_list(text: str) -> None:
    """Raises DataError for ``['a', 'b']``, as pandas and ``str`` write lists into a CSV."""
    if "'" not in text or not text.endswith("]"):
        return
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return
    try:
        value = ast.literal_eval(re.sub(r"\bnan\b(?=\s*[,\]])", "None", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return
    if isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
        raise DataError(
            f"{shown(text)} is a list as Python prints it; write it as JSON, "
            "with table[column].map(json.dumps) in pandas"
        )


def as_mapping(cell: Cell) -> dict[str, Cell]:
    """A mapping as it is; text as a JSON object or as ``a=1|b=0``."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("{"):
            cell = from_json(text)
        else:
            pairs = [part.partition("=") for part in text.split("|")]
            if not all(equals for _, equals, _ in pairs):
                raise DataError(f"{shown(text)} is not of the form a=1|b=0")
            names = [name.strip() for name, _, _ in pairs]
            if len(set(names)) < len(names):
                raise DataError(f"{shown(text)} names something twice")
            cell = {name: value.strip() for name, (_, _, value) in zip(names, pairs, strict=True)}
    if not isinstance(cell, Mapping):
        raise DataError(f"{shown(cell)} is not a mapping")
    # Parquet gives every struct all of its fields, null where a row has none.
    return {as_text(name): value for name, value in cell.items() if value is not None}


def from_json(text: str | bytes) -> Any:
    """Strict JSON: a name twice in one object, and too deep nesting, are errors too."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            raise ValueError("a name occurs twice in one object")
        return mapping

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise DataError("is JSON nested too deeply") from None
    except ValueError as error:
        raise DataError(f"is not JSON: {error}") from None
