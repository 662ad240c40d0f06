"""Which constructors a file that may come from anybody, such as ``config.json``, can name.

A workdir or an exported folder is data: reading one must not run code of its maker's choice.
Constructors in it are classes of ``configs``, ``papers`` and those rooms of ``vision`` that hold
parts of configs, of modules that the run's config file named (``modules.json``, see
``vision.config.config_files``) or that this process has imported from the user's own files
already, and functions there that are annotated to return such a class. Names with an underscore,
installed packages and Python's own modules are refused, ``optax`` excepted, unless the user allows
them.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from vision.config.config_files import is_installed
from vision.config.hints import resolved
from vision.config.old_names import current_path
from vision.config.own_modules import is_own
from vision.config.schema import ConfigError, locate

OURS = ("vision", "configs", "papers")
_PACKAGES = ("optax",)  # of which only what makes its own classes
# Parts of configs; the others (the loop, command lines, files, pages) start programs and write.
_ROOMS = (
    *("vision.data", "vision.models", "vision.blocks", "vision.objectives", "vision.evaluators"),
    *("vision.probes", "vision.scenario", "vision.train", "vision.parallel.mesh"),
    *("vision.checkpoint.store.Checkpoints", "vision.weights.init_from"),
    *("vision.run.experiment", "vision.run.nonfinite"),
)


def check_modules(
    paths: Iterable[str], workdir: Path, allow: Collection[str] = (), file: str = "config.json"
) -> None:
    """Checks the modules of constructors; none of them is imported.

    Args:
      paths: as ``file`` has them; modules beside a config file by their names with the place.
      workdir: folder of ``file``.
      allow: names of packages or modules that the user trusts.
      file: for messages.

    Raises:
      ConfigError: a module that is not trusted; names it.
    """
    for path in paths:
        module = current_path(path).rpartition(".")[0]
        if not _is_trusted(module, workdir, allow):
            raise ConfigError(
                f"{workdir / file} names the constructor {path!r}, of a module that is neither "
                "ours nor the config's own: it is not imported. If you trust this file, allow it "
                f"by --allow_modules={module.partition('.')[0] or path}"
            )


def check_constructors(
    paths: Iterable[str], workdir: Path, allow: Collection[str] = (), file: str = "config.json"
) -> None:
    """Checks constructors whose modules ``check_modules`` has passed; none of them is called.

    Raises:
      ConfigError: one that is no class of a trusted module, nor a function that makes one.
    """
    for path in paths:
        constructor, module = locate(path), current_path(path).rpartition(".")[0]
        if not _is_allowed(module, allow) and not _makes_objects(constructor, module):
            raise ConfigError(
                f"{workdir / file} names {path!r}, which is no class of ours or the config's own, "
                "nor a function that is annotated to make one: it is not called"
            )


def _is_trusted(module: str, workdir: Path, allow: Collection[str]) -> bool:
    top = module.partition(".")[0]
    # ``read_config`` gives a place to the names of ``modules.json`` only.
    if top in (*OURS, *_PACKAGES) or is_own(module) or _is_allowed(module, allow):
        return True
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return not is_installed(path) and not path.is_relative_to(workdir.resolve())


def _is_allowed(module: str, allow: Collection[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allow)


def _makes_objects(constructor: Any, module: str) -> bool:
    """Whether it is a class, or a function that returns one, of the same package or of ours."""
    packages = (*OURS, *_PACKAGES, module.partition(".")[0])
    name = str(getattr(constructor, "__qualname__", ""))
    home = f"{getattr(constructor, '__module__', '')}.{name}"
    if name.startswith("_") or (home.startswith("vision.") and not _is_allowed(home, _ROOMS)):
        return False
    if isinstance(constructor, type):
        return _package(constructor) in packages
    function = inspect.unwrap(constructor)  # under functools.cache, say
    if not inspect.isfunction(function) or _package(function) not in packages:
        return False
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        return False
    return _is_class_of(resolved(annotation, function), packages)


def _is_class_of(hint: Any, packages: tuple[str, ...]) -> bool:
    arguments = [a for a in typing.get_args(hint) if a not in (Ellipsis, type(None))]
    if arguments:
        return all(_is_class_of(argument, packages) for argument in arguments)
    return isinstance(hint, type) and _package(hint) in packages


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", "")).partition(".")[0]
