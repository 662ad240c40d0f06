"""The folder of a run: one config, one run at a time, nothing of another run overwritten."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

import ml_collections

from vision.checkpoint.identity import CONFIG, remember_earlier
from vision.config import config_files, own_modules
from vision.config.errors import UserError, caused_by
from vision.config.files import replace_file
from vision.config.schema import ConfigError
from vision.config.specs import (
    constructors_of,
    differences,
    from_plain,
    modules_of,
    to_json,
    to_plain,
    with_constructors,
    with_defaults,
)
from vision.config.trusted import check_constructors, check_modules
from vision.parallel import cluster
from vision.run.sealed import NotAsWrittenError, seal, unseal

DATA_SPEC = "run.json"
# Where the modules beside the config file lie that the config's constructors come from.
MODULES = "modules.json"
_LOCK = ".lock"
log = logging.getLogger(__name__)


class WorkdirError(UserError):
    """The workdir cannot be used for this run."""


class WorkdirLock:
    """The lock of a workdir; ``None`` in the place of a file on processes that do not hold it."""

    def __init__(self, workdir: Path, file: TextIO | None):
        self._workdir, self._file = workdir, file

    def __enter__(self) -> WorkdirLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        """Raises WorkdirError if the workdir is no longer the folder that was locked: it was
        renamed, moved or deleted, and what is written under its name could be another run's."""
        if self._file is None:
            return
        held = os.fstat(self._file.fileno())
        try:
            present = os.stat(self._workdir / _LOCK)
        except OSError:
            present = None
        if present is None or (held.st_dev, held.st_ino) != (present.st_dev, present.st_ino):
            raise WorkdirError(
                f"workdir {self._workdir} was renamed, moved or deleted while the run went on; "
                "nothing more is written there. Its checkpoints are where it is now: give it its "
                "name again, or start with --workdir=... of the new one"
            )


def open_workdir(
    workdir: Path, config: ml_collections.ConfigDict, *, accept_config_change: bool = False
) -> WorkdirLock:
    """Makes or reopens the folder of a run and writes the resolved config into it.

    Of several processes the first does it; the others wait for it, and fail as it does. A folder
    that holds the config of a run but no checkpoint takes any config.

    Returns:
      The lock, to be used as a context: as long as it is open, no other run can use this folder.

    Raises:
      WorkdirError: not a writable folder, in use, or the run of another config.
    """
    lock = WorkdirLock(workdir, None)
    found = None
    if cluster.is_main():
        try:
            lock = WorkdirLock(workdir, _lock(workdir, config, accept_config_change))
        except UserError as error:
            found = str(error), error.status
    found = cluster.agree(found)
    if found is not None:
        problem = WorkdirError(found[0])
        problem.status = found[1]
        raise problem
    return lock


def _lock(workdir: Path, config: ml_collections.ConfigDict, accept_config_change: bool) -> TextIO:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / _LOCK).open("w")
    except OSError as error:
        problem = WorkdirError(f"workdir {workdir} cannot be written: {error.strerror}")
        raise caused_by(problem, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise WorkdirError(
            f"workdir {workdir} is in use by another process; wait for it or take another folder"
        ) from error
    path = workdir / CONFIG
    before, now = _modules(workdir), config_files.describe(modules_of(config))
    for name, row in now.items():
        config_files.check_outside(Path(row["file"]), workdir)
        if name in before and before[name]["sha256"] != row["sha256"]:
            log.warning("%s is not what it was when %s was made with it", row["file"], workdir)
    if path.exists() and not accept_config_change and _holds_checkpoints(workdir):
        named = modules_of(from_plain(_read(path)))
        gone = {name: row for name, row in before.items() if name in named}
        stored = _config_of(workdir, {**gone, **now}, modules_of(config))
        changed = differences(to_plain(stored), json.loads(to_json(config)))
        if changed:
            lock.close()
            shown = "\n  ".join(changed[:8]) + ("\n  ..." if len(changed) > 8 else "")
            raise WorkdirError(
                f"workdir {workdir} holds the run of another config; what differs from its "
                f"{CONFIG}:\n  {shown}\n"
                "take another --workdir, or pass --accept_config_change to go on with the new one"
            )
    if now or before:
        write_text(workdir / MODULES, seal(now, indent=2) + "\n")
    text = to_json(config)
    if path.exists() and (earlier := path.read_bytes()) != text.encode():
        try:
            remember_earlier(workdir, earlier)
        except OSError as error:
            problem = WorkdirError(f"workdir {workdir} cannot be written: {error.strerror}")
            raise caused_by(problem, error) from error
    write_text(path, text)
    return lock


def in_use(workdir: Path) -> bool:
    """Whether a process is training in this folder."""
    try:
        lock = (workdir / _LOCK).open()
    except OSError:  # nobody ever was
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _holds_checkpoints(workdir: Path) -> bool:
    """Whether a run, or a stage of a scenario, has saved anything here."""
    saved = [*workdir.glob("checkpoints/*"), *workdir.glob("*/checkpoints/*")]
    if any(path.name.isdecimal() for path in saved):  # not a save that was cut off
        return True
    return any(workdir.glob("quarantine/*")) or (workdir / "stages.json").exists()


def read_config(workdir: Path, allow: Collection[str] = ()) -> ml_collections.ConfigDict:
    """The resolved config that a workdir was made with, in the names and defaults of today.

    The workdir may come from anybody: see ``vision.config.trusted`` for what it can name.

    Runs the modules that lay beside its config file, from where they lay; says so when one has
    changed since.

    Args:
      workdir: folder of a run.
      allow: packages, beside ours and the config's own, whose constructors may be called.

    Raises:
      WorkdirError: no workdir of a run, or a damaged file in it.
      ModuleError: a module beside the config file is gone.
      ConfigError: a constructor that is not trusted.
    """
    if not (workdir / CONFIG).exists():
        raise WorkdirError(f"{workdir} is not the workdir of a run: it has no {CONFIG}")
    return _config_of(workdir, _modules(workdir), allow)


def _config_of(
    workdir: Path, modules: dict[str, dict[str, str]], allow: Collection[str] = ()
) -> ml_collections.ConfigDict:
    config_files.recipes_importable()

    def placed(path: str) -> str:
        if own_modules.is_own(path):  # stored without its place, which would be trusted
            raise WorkdirError(f"{workdir / CONFIG}: {path!r} is no name that a config can have")
        parts = path.split(".")
        for end in range(len(parts) - 1, 0, -1):
            if row := modules.get(".".join(parts[:end])):
                return own_modules.own_name(path, Path(row["folder"]))
        return path

    try:
        config = with_constructors(from_plain(_read(workdir / CONFIG)), placed)
        constructors = constructors_of(config)
        check_modules(constructors, workdir, allow)
        config_files.load_described(modules, workdir)
        check_constructors(constructors, workdir, allow)
        return with_defaults(config)
    except ConfigError as error:
        if str(workdir) in str(error):
            raise
        raise ConfigError(f"{workdir / CONFIG}: {error}") from error


def _modules(workdir: Path) -> dict[str, dict[str, str]]:
    path = workdir / MODULES
    try:
        rows, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
        keys = ("folder", "file", "sha256")
        return {name: {key: str(row[key]) for key in keys} for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (NotAsWrittenError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}): delete it and run the train.py command again, which "
            "writes it anew and trains nothing twice"
        ) from error


def write_text(path: Path, text: str) -> None:
    """``replace_file`` with a text; WorkdirError where it cannot be written."""
    try:
        with replace_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = WorkdirError(f"{path} cannot be written: {error.strerror}")
        raise caused_by(problem, error) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkdirError(f"{path} is not a config of ours: {error}") from error
