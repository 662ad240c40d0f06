"""Class names that Hugging Face's datasets library keeps in the metadata of parquet files.

The cells of such a column are class numbers, -1 for none; the names are beside the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vision.data.cells import Cell
from vision.data.labels import label_form, refuse_twins
from vision.data.source import DataError


def declared_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Column to class names, for columns that are a ClassLabel or a list of them.

    Args:
      metadata: of the file's schema; names that cannot be read are as if there were none.
    """
    try:
        content = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
        return {str(name): names for name, kind in features.items() if (names := _names(kind))}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _names(kind: Any) -> tuple[str, ...]:
    while True:
        if isinstance(kind, list) and len(kind) == 1:
            kind = kind[0]
        elif isinstance(kind, dict) and "feature" in kind:
            kind = kind["feature"]
        else:
            break
    if not isinstance(kind, dict) or kind.get("_type") != "ClassLabel":
        return ()
    names = kind.get("names")
    return tuple(names) if isinstance(names, list) and all(type(n) is str for n in names) else ()


def named_cell(cell: Cell, names: tuple[str, ...]) -> Cell:
    """A cell of class numbers with their names instead; None for -1, texts as they are.

    Raises:
      DataError: a number has no name.
    """
    if isinstance(cell, list | tuple):
        return [named_cell(item, names) for item in cell]
    if isinstance(cell, bool) or not isinstance(cell, int):
        return cell
    if cell == -1:
        return None
    if not 0 <= cell < len(names):
        raise DataError(f"is class {cell}, but the file names only {len(names)}")
    return names[cell]


def agreed(given: tuple[str, ...], declared: tuple[str, ...]) -> bool:
    """Whether class numbers are read by the file's names: those given are the same, or some.

    Names that have nothing in common with the file's (a translation) stand for its numbers in
    order, as those do that differ here and there but agree in every place that both have.

    Raises:
      DataError: neither: the names given are partly the file's, in another order.
    """
    if not given or set(given) <= set(declared) or set(declared) <= set(given):
        return True
    if [label_form(name) for name in given] == [label_form(name) for name in declared]:
        return False
    refuse_twins([*(("names", name) for name in given), *(("the file", x) for x in declared)])
    common = set(given) & set(declared)
    if all(given.index(name) == declared.index(name) for name in common):
        return False
    raise DataError(
        f"names={list(given)[:5]} and the file's own class names, {list(declared)[:5]}, agree in "
        "part and in another order; give the file's names, or leave names empty to take them"
    )
