"""What classes look like, in words: a list of texts per class, from a config or a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vision.data.source import DataError


def read_descriptors(
    given: Mapping[str, Sequence[str]] | str | Path, names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The descriptors of some classes, in their order; others that are given are not read.

    Args:
      given: name of a class to its descriptors, or the path of a JSON file with such an object.
      names: of the classes.

    Raises:
      DataError: the file is not there or no such object, or a class is missing or has no
        descriptor, an empty one or one twice. It names file and class.
    """
    where, found = "descriptors", given
    if isinstance(given, (str, Path)):
        where = str(given)
        try:
            found = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: {error}") from error
    if not isinstance(found, Mapping):
        raise DataError(f"{where} is no JSON object of class names to lists of descriptors")
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{where} has no descriptors of {missing[0]!r}, and of {len(missing) - 1} other "
            f"classes; it has {len(found)}, the first is {next(iter(found), '')!r}"
        )
    for name in names:
        texts = found[name]
        listed = isinstance(texts, (list, tuple))
        if not listed or not all(isinstance(x, str) and x.strip() for x in texts):
            raise DataError(f"{where}: {name!r} has no list of texts that are not empty")
        if not texts or len(set(texts)) < len(texts):
            raise DataError(f"{where}: {name!r} has no descriptor, or one of them twice")
    return {name: tuple(found[name]) for name in names}
