"""Config files and the modules beside them: found, named and remembered by their place.

A config file may define classes and functions of its own, or import them from its neighbours,
wherever on disk it lies and without PYTHONPATH::

    from mynet import Net  # mynet.py, or the folder mynet, lies beside the config file

Two experiments may both have a ``mynet.py``, and Python knows a module by its name alone. Such
modules are therefore called by name and folder: ``mynet__at_3fa9c1d2``, with the first eight
digits of the SHA-256 of the folder's path. ``mynet`` is an alias of the config that was read last.
In files the short name stands (``portable``), and ``modules.json`` of a workdir says where the
module lies and what it was (``describe``); ``load_described`` finds it again for evaluation.

A config file that Python can import already (``configs/digits_vit.py`` is ``configs.digits_vit``)
is an ordinary module, and so is everything that it imports.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from vision.config.errors import UserError

log = logging.getLogger(__name__)
_PLACE = re.compile(r"__at_[0-9a-f]{8}(?=\.|$)")
_DIGEST = "__sha256__"


class ModuleError(UserError):
    """A module beside a config file cannot be used; the message names its file."""


def recipes_importable() -> None:
    """Lets ``configs`` and ``papers`` be imported from whichever folder a program is run.

    They stand beside ``vision`` in a checkout and in ``vision/_recipes`` of an installation, where
    two names as common as these would be in everybody's way. Last on the path: others go first.
    """
    root = str(recipes())
    if root not in sys.path:
        sys.path.append(root)


def recipes() -> Path:
    """The folder that holds ``configs`` and ``papers``."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent


def slugs() -> list[str]:
    """Short names: ``digits_vit`` for ``configs/digits_vit.py``, ``smmix`` for a paper's config."""
    own = [path.stem for path in (recipes() / "configs").glob("*.py") if path.stem != "__init__"]
    return sorted(
        [*own, *(path.parent.name for path in (recipes() / "papers").glob("*/config.py"))]
    )


def find(name: str) -> Path | None:
    """The config file that a command line means; None where there is none.

    Args:
      name: its path; or the folder of a paper; or a short name, see ``slugs``.
    """
    path = Path(name)
    if path.is_file():
        return path
    files = [path / "config.py"] if name else []
    if name.isidentifier():
        files += [recipes() / "configs" / f"{name}.py", recipes() / "papers" / name / "config.py"]
    found = next((file for file in files if file.is_file()), None)
    here = Path.cwd()
    return found.relative_to(here) if found and found.is_relative_to(here) else found


@contextlib.contextmanager
def reading(path: Path) -> Iterator[ModuleType]:
    """The module of a config file; its neighbours can be imported while the context is open.

    A file that has changed since it was read in this process is read again, with its neighbours.

    Args:
      path: a Python file.

    Raises:
      Exception: whatever the file raises when it is run.
    """
    recipes_importable()
    file = path.resolve()
    folder, name = _package_of(file)
    if _is_importable(folder, name, file):
        yield importlib.import_module(name)
        return
    folders = list(dict.fromkeys([file.parent, folder]))
    with _neighbours(folders):
        yield load(folder, name, file)


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
    return _PLACE.search(name) is not None


def portable(name: str) -> str:
    """A name without its place, as it is stored."""
    return _PLACE.sub("", name, count=1)


def describe(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Where modules beside config files lie, with the modules of theirs that they import.

    Args:
      names: of modules, with their places; others are passed over.

    Returns:
      Name without place to ``folder`` and ``file``, absolute paths, and ``sha256`` of the file
      as it was run.

    Raises:
      ModuleError: one name in two folders, which a workdir could not tell from each other.
    """
    found: dict[str, dict[str, str]] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if not is_own(name) or name in seen or name not in sys.modules:
            continue
        seen.add(name)
        module = sys.modules[name]
        waiting.append(name.rpartition(".")[0])
        if getattr(module, "__file__", None) is None:  # a folder without __init__.py
            continue
        waiting += _imported(module)
        file = Path(str(module.__file__))
        place = file.parent if file.name == "__init__.py" else file
        row = {"folder": str(place.parents[name.count(".")]), "file": str(file)}
        row["sha256"] = getattr(module, _DIGEST, None) or digest(file)
        other = found.setdefault(portable(name), row)
        if other is not row:
            raise ModuleError(
                f"this config uses {other['file']} and {file}, both called {portable(name)}: "
                "give one of them another name"
            )
    return dict(sorted(found.items()))


def load_described(modules: Mapping[str, Mapping[str, str]], workdir: Path) -> None:
    """Runs the modules that the config of a workdir was made with, where this was not yet done.

    Nothing inside a workdir is ever run: it may come from anybody.

    Args:
      modules: what ``describe`` gave.
      workdir: whose they are.

    Raises:
      ModuleError: a file is gone or lies in the workdir.
    """
    todo = {k: x for k, x in modules.items() if own_name(k, Path(x["folder"])) not in sys.modules}
    for name, row in todo.items():
        file = Path(row["file"])
        check_outside(file, workdir)
        if is_installed(file):
            raise ModuleError(
                f"{workdir} names {file} as a module beside its config, but it belongs to Python "
                "or to an installed package: it is not run"
            )
        if not file.is_file():
            raise ModuleError(
                f"the config of {workdir} uses {name}, which was {file} and is gone; put it back "
                f"there (SHA-256 {row['sha256']}), or run train.py with the config where it is now"
            )
        if digest(file) != row["sha256"]:
            log.warning("%s has changed since %s was made with it", file, workdir)
    for name, row in todo.items():
        folder = Path(row["folder"])
        beside = Path(row["file"]).parent
        with _neighbours([beside, folder]):
            load(folder, name, Path(row["file"]))


def check_outside(file: Path, workdir: Path) -> None:
    """Raises ModuleError for a file in a workdir, or in that of the scenario it is a stage of."""
    top = workdir.resolve()
    if (top.parent / "stages.json").exists():
        top = top.parent
    if file.resolve().is_relative_to(top):
        raise ModuleError(
            f"{file} lies in the workdir {top}: no program is run from there; keep configs and "
            "their modules in a folder of their own"
        )


def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _package_of(file: Path) -> tuple[Path, str]:
    """The folder above the packages that a file lies in, and its dotted name from there."""
    folder, parts = file.parent, [re.sub(r"\W", "_", file.stem)]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _is_importable(folder: Path, name: str, file: Path) -> bool:
    """Whether an import statement finds this very file, as a part of a package."""
    if "." not in name or folder not in [Path(entry).resolve() for entry in sys.path]:
        return False
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # another package of this name was imported before
        return False
    return found is not None and found.origin is not None and Path(found.origin) == file


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
def _neighbours(folders: Sequence[Path]) -> Iterator[None]:
    """Import statements look into ``folders`` first; aliases of other folders are put aside."""
    nested = any(isinstance(finder, _Neighbours) for finder in sys.meta_path)
    aside = {name: sys.modules.pop(name) for name in _aliases()}
    endings = tuple(own_name("", folder) for folder in folders)
    mine = [name for name in sys.modules if _belongs(name, endings)]
    if any(_has_changed(sys.modules[name]) for name in mine):
        for name in mine:
            if hasattr(sys.modules[name], _DIGEST):  # others are being run just now
                del sys.modules[name]
    finder = _Neighbours(folders)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) if _belongs(name, endings) else None
            if file is not None and not hasattr(module, _DIGEST):
                setattr(module, _DIGEST, digest(Path(file)))
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
        if is_own(top) or top in sys.stdlib_module_names:
            return None
        for folder in self.folders:
            place = folder / top
            if not place.with_suffix(".py").is_file() and not _holds_modules(place):
                continue
            package, name = _package_of(place)
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
    file, known = getattr(module, "__file__", None), getattr(module, _DIGEST, None)
    if file is None or known is None:
        return False
    return not Path(file).is_file() or digest(Path(file)) != known


def _imported(module: ModuleType) -> list[str]:
    """Names that the import statements of a module's file may mean, in its folder or package."""
    name, package = module.__name__, str(module.__package__ or "")
    place = _PLACE.search(name)
    written: list[str] = []
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_bytes())):
        if isinstance(node, ast.Import):
            written += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = [*above, node.module] if node.level else [node.module]
            base = ".".join(part for part in start if part)
            written += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    found = []
    for each in written:
        top, dot, rest = each.partition(".")
        found += [each, f"{package}.{each}", f"{top}{place[0] if place else ''}{dot}{rest}"]
    return found
