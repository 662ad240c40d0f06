"""The folder that damaged checkpoints are moved to; nothing in it is ever deleted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vision.checkpoint.manifest import ITEM
from vision.checkpoint.reading import STATE, incomplete

log = logging.getLogger(__name__)


class Quarantine:
    """``quarantine`` in a workdir, beside ``checkpoints``."""

    def __init__(self, workdir: Path):
        self.folder = workdir.resolve() / "quarantine"
        self._checkpoints = workdir.resolve() / "checkpoints"

    def set_aside(self, name: int | str, problem: str) -> None:
        """Moves a step, or another name among the checkpoints, here and logs why."""
        self.folder.mkdir(exist_ok=True)
        source, number = self._checkpoints / str(name), 0
        while (goal := self.folder / f"{name}-{number}").exists():
            number += 1
        log.warning("checkpoint %s is not usable: %s; moved to %s", source, problem, goal)
        os.replace(source, goal)

    def set_aside_unusable(self) -> None:
        """Moves what has a step's name and lacks a part, and names that Orbax would read as the
        number of another step: digits of other scripts."""
        for path in list(self._checkpoints.iterdir()):
            name = path.name.strip()
            if name.isdecimal() and (not name.isascii() or name != path.name):
                self.set_aside(path.name, "its name is no number of a step")
        for step, problem in list(incomplete(self._checkpoints)):
            self.set_aside(step, problem)

    def checkpoints(self) -> list[str]:
        """Names of what was set aside and has parts of a checkpoint; other junk has none."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if (path / STATE).exists() or (path / ITEM).exists()
        )
