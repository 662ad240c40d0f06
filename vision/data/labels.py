"""What a label's cell or folder says: one rule for folders, CSV, JSON, parquet and tar shards.

* Whole numbers stay whole: ``2.0``, as pandas writes a column with gaps, is class 2.
* -1, an empty cell and ``nan`` are no label (unless a class was explicitly given that name).
* Names are sorted as text, as ``ls`` and torchvision sort folders; the whole numbers of a table are
  sorted as numbers. Where the two orders differ, data of a run are matched to it by name.
* Names that differ only in form are one class written in two ways, and refused: case, spaces of
  any kind and width, zero-width characters, composed and decomposed accents (NFC, NFD), full-width
  letters.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from vision.data.cells import Cell, as_text, is_missing, shown
from vision.data.source import DataError

_WHOLE_FLOAT = re.compile(r"(-?\d+)\.0*")
_WHOLE_NUMBER = re.compile(r"\+?(\d+)(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
# Characters that are not drawn and are not in category Cf: joiners, fillers, variation selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}


def label_text(cell: Cell) -> str:
    """A label's name: the text of its cell, of whole numbers without a fraction."""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    text = as_text(cell)
    match = _WHOLE_FLOAT.fullmatch(text.strip())
    if match is None:
        return text.strip() if text.strip().lstrip("-").isdecimal() else text
    return match[1]


def is_unlabelled(cell: Cell, names: Sequence[str] = ()) -> bool:
    """Whether a cell holds no label: missing, blank or -1; a text among ``names`` is a label."""
    if is_missing(cell, names):
        return True
    if not isinstance(cell, str | bytes | bool | int | float | np.generic):
        return False
    text = label_text(cell)
    blank = not text.strip() if text.isascii() else not label_form(text)
    return (blank or text == "-1") and text not in names


def label_form(name: str) -> str:
    """What is left of a name without its form: equal for names that should be one class."""
    text = unicodedata.normalize("NFKC", name).translate(_QUOTES)
    kinds = ((c, unicodedata.category(c)) for c in text)
    text = "".join(
        "-" if kind == "Pd" else c
        for c, kind in kinds
        if c.isspace() or (kind not in ("Cf", "Cc") and c not in _INVISIBLE)
    )
    text = unicodedata.normalize("NFKC", " ".join(text.split()).casefold())
    match = _WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else text


def refuse_twins(names: Iterable[tuple[str, str]]) -> None:
    """Raises DataError where two of (location, name) differ only in form."""
    first: dict[str, tuple[str, str]] = {}
    for location, name in names:
        other_location, other = first.setdefault(label_form(name), (location, name))
        if other != name:
            raise DataError(
                f"{location}: {name!r} differs from {other!r} ({other_location}) "
                f"{_difference(name, other)}; make them one name"
            )


def _difference(name: str, other: str) -> str:
    if name.strip().casefold() == other.strip().casefold():
        return "only in case or spaces"
    return f"only in form: {name!a}, {other!a}"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Class names in label order, and the index of the name in a cell.

    Attributes:
      names: each once.
    """

    names: tuple[str, ...]

    @functools.cached_property
    def _indices(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @functools.cached_property
    def _forms(self) -> dict[str, str]:
        return {label_form(name): name for name in self.names}

    @functools.cached_property
    def _numbered(self) -> bool:
        return any(_NUMBER.fullmatch(name.strip()) for name in self.names)

    def index(self, cell: Cell, *, numbers: bool = True) -> int:
        """The index of the name in ``cell``; its number is accepted too where no name is a number.

        Raises:
          DataError: no such name; says which is nearest.
        """
        if type(cell) is str or type(cell) is int:  # what most cells are, at once
            index = self._indices.get(cell if type(cell) is str else str(cell))
            if index is not None:
                return index
        if is_unlabelled(cell, self.names):
            what = "is missing" if is_missing(cell, self.names) else f"is {shown(cell)}, no label"
            raise DataError(f"{what}; give it, or set optional=True where the type has it")
        text = label_text(cell)
        for name in (as_text(cell), text):
            if name in self._indices:
                return self._indices[name]
        count = len(self.names)
        if numbers and text.isdecimal() and not self._numbered:
            if int(text) < count:
                return int(text)
            raise DataError(f"class {text} of only {count}, 0..{count - 1}")
        twin = self._forms.get(label_form(text))
        if twin is not None:
            raise DataError(f"{text!r} differs from {twin!r} {_difference(text, twin)}; mend it")
        near = difflib.get_close_matches(text, self.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; names are {shown(list(self.names))}"
        raise DataError(f"{text!r} is none of the {count} names{hint}")


def distinct_names(
    cells: Iterable[tuple[str, Cell]], *, sort: bool = True, ids: bool = False
) -> tuple[str, ...]:
    """The distinct names among (location, cell).

    Args:
      cells: of labels; none is unlabelled.
      sort: sort them, whole numbers from 0 as numbers; otherwise the order matters.
      ids: identifiers of groups and not names of classes: whole numbers are like others, and those
        that differ only in form stay apart.

    Raises:
      DataError: two names differ only in form, numbers leave a gap or are negative, or, with
        ``sort=False``, a name occurs twice.
    """
    first: dict[str, str] = {}
    for location, cell in cells:
        name = label_text(cell) if sort else as_text(cell)
        if name in first:
            if not sort:
                raise DataError(f"{location}: {name!r} occurs twice, first in {first[name]}")
            continue
        first[name] = location
    if not ids:
        refuse_twins((location, name) for name, location in first.items())
    names = list(first)
    if not sort:
        return tuple(names)
    if not ids and names and all(re.fullmatch(r"0|-?[1-9]\d*", name) for name in names):
        names.sort(key=int)
        if int(names[0]) < 0:
            raise DataError(
                f"{first[names[0]]}: class number {names[0]} is negative; give names, in order"
            )
        if int(names[-1]) != len(names) - 1:
            gap = next(i for i, name in enumerate(names) if int(name) != i)
            raise DataError(
                f"{first[names[-1]]}: class numbers go up to {names[-1]}, but there is no {gap}; "
                "give names, in order"
            )
        return tuple(names)
    return tuple(sorted(names))
