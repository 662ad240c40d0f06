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
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from vision.config.errors import UserError
from vision.config.own_modules import (
    DIGEST,
    PLACE,
    digest,
    is_own,
    load,
    neighbours,
    own_name,
    package_of,
    portable,
)

log = logging.getLogger(__name__)


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
    folder, name = package_of(file)
    if _is_importable(folder, name, file):
        yield importlib.import_module(name)
        return
    folders = list(dict.fromkeys([file.parent, folder]))
    with neighbours(folders):
        yield load(folder, name, file)


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
        row["sha256"] = getattr(module, DIGEST, None) or digest(file)
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
        file, folder = Path(row["file"]), Path(row["folder"])
        place = file.parent if file.name == "__init__.py" else file
        if not file.is_absolute() or folder != place.parents[min(name.count("."), 9)]:
            raise ModuleError(f"modules.json of {workdir}: {name} is not {file} of {folder}")
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
    for name, row in modules.items():
        file = Path(row["file"])
        known = sys.modules.get(own_name(name, Path(row["folder"])))
        now = getattr(known, DIGEST, None) or (digest(file) if file.is_file() else row["sha256"])
        if now != row["sha256"]:
            log.warning("%s has changed since %s was made with it: as it is now", file, workdir)
    for name, row in todo.items():
        folder = Path(row["folder"])
        beside = Path(row["file"]).parent
        with neighbours([beside, folder]):
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


def _is_importable(folder: Path, name: str, file: Path) -> bool:
    """Whether an import statement finds this very file, as a part of a package."""
    if "." not in name or folder not in [Path(entry).resolve() for entry in sys.path]:
        return False
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # another package of this name was imported before
        return False
    return found is not None and found.origin is not None and Path(found.origin) == file


def _imported(module: ModuleType) -> list[str]:
    """Names that the import statements of a module's file may mean, in its folder or package."""
    name, package = module.__name__, str(module.__package__ or "")
    place = PLACE.search(name)
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
