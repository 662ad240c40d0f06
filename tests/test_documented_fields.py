"""Every public field of every dataclass and linen module stands in its class's docstring."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import papers
import vision

# ``name: text`` or ``first, second: text`` under ``Attributes:``; deeper lines go on with a text.
_ENTRY = re.compile(r"  ((?:\w+, )*\w+): ")


# What a paper adds beside its method: run or tested, but not configured.
_PROGRAMS = re.compile(r"papers\.\w+\.(claim|config|test_\w+|conftest)$")


def classes() -> Iterator[type]:
    """The public dataclasses and linen modules of the code, each where it is defined."""
    for package in (vision, papers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if _PROGRAMS.match(module.name):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if not isinstance(value, type) or value.__module__ != module.name:
                    continue
                if dataclasses.is_dataclass(value) and not name.startswith("_"):
                    yield value


def fields(cls: type) -> set[str]:
    """The public fields that a class adds to those of its bases."""
    own = inspect.get_annotations(cls).keys()
    public = {f.name for f in dataclasses.fields(cls) if f.init and f.name[0] != "_"}  # pyright: ignore
    return (public & own) - {"parent", "name"} if hasattr(cls, "apply") else public & own


def documented(doc: str) -> list[str]:
    """The names in the section ``Attributes:`` of a docstring."""
    _, found, section = inspect.cleandoc(doc).partition("\nAttributes:\n")
    if not found:
        return []
    section = re.split(r"\n\n?(?=\S)", section)[0]
    entries = (_ENTRY.match(line) for line in section.splitlines())
    return [name for entry in entries if entry for name in entry[1].split(", ")]


def faults(cls: type) -> Iterator[str]:
    names = documented(cls.__doc__ or "")
    if missing := fields(cls) - set(names):
        yield f"{cls.__module__}: {cls.__name__} does not document {', '.join(sorted(missing))}"
    known = {f.name for f in dataclasses.fields(cls)} | set(dir(cls))  # pyright: ignore
    if unknown := [name for name in names if name not in known]:
        yield f"{cls.__module__}: {cls.__name__} documents {', '.join(unknown)}, but has no such"


def test_fields_are_documented():
    wrong = [fault for cls in classes() for fault in faults(cls)]
    assert not wrong, "\n".join(wrong)


def test_faults_are_found():
    @dataclasses.dataclass
    class Wrong:
        """Says what.

        Attributes:
          loss: of the model.
        """

        loss_type: str

    (missing, unknown) = faults(Wrong)
    assert missing.endswith("Wrong does not document loss_type")
    assert "Wrong documents loss" in unknown


def test_the_section_is_read_by_name():
    doc = """Says what.

    Attributes:
      first: a text that goes on: here
        with: a colon.
      second, third: together.

    Raises:
      ValueError: no field.
    """
    assert documented(doc) == ["first", "second", "third"]
    assert documented("No section.") == []
