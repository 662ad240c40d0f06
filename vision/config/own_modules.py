"""Modules beside config files: loaded under a name that tells their folder.

``mynet.py`` of one folder is ``mynet__at_3fa9c1d2`` (``own_name``), so that two experiments may
both have one. While a config file is read, import statements find its neighbours under their short
name.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

PLACE = re.compile(r"__at_[0-9a-f]{8}(?=\.|$)")
# A config may lie at the top of a checkout: what lies beside it there is no module of its own.
_LIBRARY, _RECIPES = __name__.partition(".")[0], ("configs", "papers")
_ROOT = Path(__file__).resolve().parents[2]
DIGEST = "__sha256__"  # attribute of a module: SHA-256 of its file as it was run


def load(folder: Path, name: str, file: Path | None = None) -> ModuleType:
    """The module ``name`` of ``folder``, under its name with the place; run at most once.

    Args:
      folder: absolute, without links.
      name: as an import statement in a file of this folder has it, such as ``nets.small``.
      file: of a module at the top, where it is not called ``name``.
    """
    top, _, rest = name.partition(".")
    own = own_name(top, folder)
    if own not in sys.modules:
        module_spec = _spec_of(own, folder / top, file if not rest else None)
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[own] = module
        try:
            if module_spec.loader is not None:
                module_spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(own, None)
            raise
    # Worker processes cannot import it by this name: they are sent the classes themselves.
    cloudpickle.register_pickle_by_value(sys.modules[own])
    return importlib.import_module(f"{own}.{rest}") if rest else sys.modules[own]


def own_name(name: str, folder: Path) -> str:
    """``nets.small`` of a folder as ``nets__at_3fa9c1d2.small``."""
    top, dot, rest = name.partition(".")
    return f"{top}__at_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}{dot}{rest}"


def is_own(name: str) -> bool:
    """Whether a module, or what is in one, was found beside a config file."""
    return PLACE.search(name) is not None


def portable(name: str) -> str:
    """A name without its place, as it is stored."""
    return PLACE.sub("", name, count=1)


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def package_of(file: Path) -> tuple[Path, str]:
    """The folder above the packages that a file lies in, and its dotted name from there."""
    folder, parts = file.parent, [re.sub(r"\W", "_", file.stem)]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _spec_of(own: str, place: Path, file: Path | None) -> importlib.machinery.ModuleSpec:
    package = place / "__init__.py"
    found: importlib.machinery.ModuleSpec | None
    if package.is_file():
        found = importlib.util.spec_from_file_location(
            own, package, submodule_search_locations=[str(place)]
        )
    elif file is None and place.is_dir():
        found = importlib.machinery.ModuleSpec(own, None, is_package=True)
        found.submodule_search_locations = [str(place)]
    else:
        found = importlib.util.spec_from_file_location(own, file or place.with_suffix(".py"))
    assert found is not None
    return found


@contextlib.contextmanager
def neighbours(folders: Sequence[Path]) -> Iterator[None]:
    """Import statements look into ``folders`` first; aliases of other folders are put aside."""
    nested = any(isinstance(finder, _Neighbours) for finder in sys.meta_path)
    aside = {name: sys.modules.pop(name) for name in _aliases()}
    endings = tuple(own_name("", folder) for folder in folders)
    mine = [name for name in sys.modules if _belongs(name, endings)]
    if any(_has_changed(sys.modules[name]) for name in mine):
        for name in mine:
            if hasattr(sys.modules[name], DIGEST):  # others are being run just now
                del sys.modules[name]
    finder = _Neighbours(folders)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) if _belongs(name, endings) else None
            if file is not None and not hasattr(module, DIGEST):
                setattr(module, DIGEST, digest(Path(file)))
        if nested:
            for name in _aliases():
                del sys.modules[name]
            sys.modules.update(aside)


class _Neighbours(importlib.abc.MetaPathFinder):
    """Finds ``mynet`` in the folders of a config file, as an alias of its name with the place."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = fullname.partition(".")[0]
        if is_own(top) or top in sys.stdlib_module_names or top == _LIBRARY:
            return None
        for folder in self.folders:
            if folder == _ROOT and top in _RECIPES:
                continue
            place = folder / top
            if not place.with_suffix(".py").is_file() and not _holds_modules(place):
                continue
            package, name = package_of(place)
            name += fullname[len(top) :]
            if _exists(package, name):
                return importlib.machinery.ModuleSpec(fullname, _Alias(package, name))
        return None


class _Alias(importlib.abc.Loader):
    """Gives an import statement the module with the place in its name."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = load(self.folder, self.name)
        self.real = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.real


def _holds_modules(place: Path) -> bool:
    return place.is_dir() and any(place.glob("*.py"))


def _exists(folder: Path, name: str) -> bool:
    place = folder.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


def _aliases() -> list[str]:
    return [
        name
        for name, module in list(sys.modules.items())
        if not is_own(name) and is_own(str(getattr(module, "__name__", "")))
    ]


def _belongs(name: str, endings: tuple[str, ...]) -> bool:
    return name.partition(".")[0].endswith(endings)


def _has_changed(module: ModuleType) -> bool:
    file, known = getattr(module, "__file__", None), getattr(module, DIGEST, None)
    if file is None or known is None:
        return False
    return not Path(file).is_file() or digest(Path(file)) != known
