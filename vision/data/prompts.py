"""Prompts: sentences with a place for a class name, and class names in several languages."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vision.config.repeated import first_repeated
from vision.data import files
from vision.data.source import DataError

PLAIN = ("a photo of a {}.",)
SHORT = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven of CLIP's eighty ImageNet templates that its authors found to do as well as all."""
NAME = ("{}",)
"""The class name alone."""

_PLACES = re.compile(r"\{c?\}")


@dataclasses.dataclass(frozen=True)
class Classes:
    """Some classes of a data set, and what they are called.

    Attributes:
      indices: in the data set's label order, each once.
      names: one per index.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]


def check_templates(templates: Sequence[str], where: str = "templates") -> None:
    """Raises DataError where there is no template, or one has no place for a name."""
    if isinstance(templates, str):
        raise DataError(f"{where} is one text {templates!r}; give a list of templates")
    if not templates:
        raise DataError(f"{where} holds no template; give one such as {PLAIN[0]!r}")
    for template in templates:
        if not isinstance(template, str) or not _PLACES.search(template):
            raise DataError(
                f"{where}: {template!r} has no placeholder: put {{}} where the class name belongs"
            )


def fill(template: str, name: str) -> str:
    """The template with ``name`` in every place ``{}`` or ``{c}``; other braces stay, also those
    of the name."""
    return _PLACES.sub(lambda _: name, template)


def prompts(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """All templates for the first name, all for the second, ...: ``len(names) * S`` texts.

    Raises:
      DataError: a template without a place, no names, or an empty one.
    """
    check_templates(templates)
    check_names(names)
    return [fill(template, name) for name in names for template in templates]


def check_names(names: Sequence[str], where: str = "class names") -> None:
    """Raises DataError where there are no names, or one is no text, empty or there twice.

    Of two classes with one name, whose prompts are equal, the second could never win.
    """
    if not names:
        raise DataError(
            f"{where}: there are none; give class_names, or a source whose info has them"
        )
    for position, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: name {position} is {name!r}, not a name")
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if (other := first.setdefault(name.strip(), position)) != position:
            raise DataError(
                f"{where}: classes {other} and {position} are both called {name!r}, which prompts "
                "cannot tell apart; give class_names such as 'crane (bird)' and 'crane (machine)'"
            )


def load_templates(path: str) -> tuple[str, ...]:
    """Templates from a file: one per line, or a JSON list (``.json``, or text that begins with [).

    Of lines, empty ones and those that begin with ``#`` are comments. A byte order mark is skipped.

    Raises:
      DataError: no such file, not UTF-8 or not JSON, no template, or one without a place.
    """
    templates = _listed(path, "templates")
    check_templates(templates, path)
    return templates


def load_names(path: str) -> tuple[str, ...]:
    """Class names from a file of the form of ``load_templates``.

    Raises:
      DataError: no such file, not UTF-8 or not JSON, no name, or one that is empty or there twice.
    """
    names = _listed(path, "names")
    check_names(names, path)
    return names


def _listed(path: str, what: str) -> tuple[Any, ...]:
    """The lines of a file, or the entries of its JSON list."""
    if path.endswith(".json") or _text(path).lstrip().startswith("["):
        listed = read_json(path)
        if not isinstance(listed, list):
            raise DataError(f"{path}: holds {type(listed).__name__}, not a list of {what}")
        return tuple(listed)
    lines = (line.strip() for line in _text(path).splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def load_language_templates(path: str) -> dict[str, tuple[str, ...]]:
    """Templates per language from JSON, ``{"DE": ["ein Foto von {}."], ...}``.

    Raises:
      DataError: see ``load_templates``; the message names the language.
    """
    languages = _mapping(path, "templates")
    for language, templates in languages.items():
        if not isinstance(templates, list):
            raise DataError(f"{path}: {language!r} holds no list of templates")
        check_templates(templates, f"{path}: {language!r}")
    return {language: tuple(templates) for language, templates in languages.items()}


def load_class_names(path: str, class_names: Sequence[str]) -> dict[str, Classes]:
    """Class names per language from JSON, for the classes that each language has a name for.

    A language is either ``[[class indices], [names]]``, the form of Babel-ImageNet, or
    ``{class name: name}``, by the names of the data set.

    Args:
      path: of the file.
      class_names: of the data set, in label order; empty when it has none.

    Raises:
      DataError: naming the language and the index or name at fault: no such class, one class
        twice, a missing name.
    """
    entries = _mapping(path, "class names")
    index_of = {name: i for i, name in enumerate(class_names)}
    languages = {}
    for language, value in entries.items():
        where = f"{path}: {language!r}"
        if isinstance(value, dict):
            if unknown := sorted(value.keys() - index_of.keys()):
                raise DataError(f"{where}: {unknown[0]!r} is none of the {len(index_of)} classes")
            indices, names = [index_of[name] for name in value], list(value.values())
        elif isinstance(value, list) and [type(part) for part in value] == [list, list]:
            indices, names = value
        else:
            raise DataError(f"{where} is neither [[indices], [names]] nor {{class: name}}")
        languages[language] = _classes(where, indices, names, len(class_names))
    return languages


def _classes(where: str, indices: list[Any], names: list[Any], count: int) -> Classes:
    if len(indices) != len(names):
        raise DataError(f"{where} has {len(indices)} class indices and {len(names)} names")
    for index in indices:
        if type(index) is not int or index < 0 or (count and index >= count):
            raise DataError(f"{where}: {index!r} is no class; they are 0..{count - 1}")
    if (repeated := first_repeated(indices)) is not None:
        raise DataError(f"{where} names class {repeated} twice")
    check_names(names, where)
    return Classes(tuple(indices), tuple(names))


def _mapping(path: str, what: str) -> Mapping[str, Any]:
    mapping = read_json(path)
    if not isinstance(mapping, dict) or not mapping:
        raise DataError(f"{path}: must map languages to {what}")
    return mapping


def read_json(path: str) -> Any:
    """What a JSON file holds; DataError with line and column where it is not JSON."""
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def _text(path: str) -> str:
    try:
        return files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from error
