"""Checkpoints: saved beside the training, restored onto any mesh, never trusted blindly.

A state is stored as one flat dictionary, path to array, so that its files say what they hold and
any part of it can be read without the code that made it.

    python -m vision.core.checkpoint digest WORKDIR    SHA-256 over the newest valid state
    python -m vision.core.checkpoint list WORKDIR      steps, and which of them are valid
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from vision.core.errors import UserError
from vision.core.mesh import path_of
from vision.core.state import digest

Tree = Any
T = TypeVar("T")
log = logging.getLogger(__name__)

_COMMITTED = "_CHECKPOINT_METADATA"
_ITEMS = ("state", "meta")


class CheckpointError(UserError):
    """A checkpoint cannot be written or read; the message names it and the way out."""


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """How often states are saved and which are kept.

    Attributes:
      every: distance in steps, epochs or examples.
      every_s: save as well when this many seconds have passed since the last save.
      keep: number of newest checkpoints kept.
      keep_every: keep every state at a multiple of this many steps for good; None for none.
      keep_every_s: keep one state for good every so many seconds; None for none.
    """

    every: str = "1000 steps"
    every_s: float = 600.0
    keep: int = 2
    keep_every: int | None = None
    keep_every_s: float | None = None

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}; at least the newest checkpoint must be kept")


class CheckpointStore:
    """The checkpoints of one workdir."""

    def __init__(self, workdir: Path, options: Checkpoints):
        self.folder = workdir.resolve() / "checkpoints"
        self._quarantine = workdir.resolve() / "quarantine"
        self.folder.mkdir(parents=True, exist_ok=True)
        for step, problem in list(_invalid(self.folder)):
            self._set_aside(step, problem)
        interval = options.keep_every_s
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=options.keep,
                keep_period=options.keep_every,
                keep_time_interval=datetime.timedelta(seconds=interval) if interval else None,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], *, wait: bool = False) -> bool:
        """Saves ``state`` at ``step`` in the background; ``wait`` until it is on disk.

        Returns:
          Whether the save was started (and, with ``wait``, finished). A failure is logged, the
          checkpoints that stand are kept, and training can go on.
        """
        try:
            self._manager.check_for_errors()
        except Exception as error:
            log.error("an earlier checkpoint could not be written to %s: %s", self.folder, error)
            self._manager.reload()
        try:
            if step not in self._manager.all_steps():
                args = ocp.args.Composite(
                    state=ocp.args.StandardSave(flatten(state)), meta=ocp.args.JsonSave(dict(meta))
                )
                self._manager.save(step, args=args, force=True)
            if wait:
                self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # orbax raises whatever the file system raised
            log.error("checkpoint %d could not be written to %s: %s", step, self.folder, error)
            self._manager.reload()
            return False
        return True

    def restore(self, abstract: T) -> tuple[T, dict[str, Any]] | None:
        """The newest valid state, laid out like ``abstract``, and its meta data.

        An unreadable checkpoint is set aside with a loud line and the one before it is used.

        Returns:
          None when there is no valid checkpoint.

        Raises:
          CheckpointError: the newest checkpoint holds other arrays than ``abstract``: it belongs
            to another config.
        """
        target = flatten(abstract)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                saved = _stored(self.folder / str(step))
            except Exception as error:
                self._set_aside(step, f"unreadable ({_first_line(error)})")
                continue
            compare(saved, target, self.folder / str(step))
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
                    ),
                )
            except Exception as error:
                self._set_aside(step, f"unreadable ({_first_line(error)})")
                continue
            leaves = [restored["state"][name] for name in target]
            return jax.tree.unflatten(jax.tree.structure(abstract), leaves), restored["meta"]
        return None

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.close()

    def _set_aside(self, step: int, problem: str) -> None:
        self._quarantine.mkdir(exist_ok=True)
        source, number = self.folder / str(step), 0
        while (goal := self._quarantine / f"{step}-{number}").exists():
            number += 1
        log.warning("checkpoint %s is not usable: %s; moved to %s", source, problem, goal)
        os.replace(source, goal)
        if hasattr(self, "_manager"):
            self._manager.reload()


def flatten(tree: Tree) -> dict[str, Any]:
    """Path such as ``params.model.head.kernel`` to leaf, in the order of ``jax.tree.leaves``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(path).replace("/", "."): leaf for path, leaf in leaves}


def _invalid(folder: Path) -> Iterator[tuple[int, str]]:
    """Steps whose folder is not a whole checkpoint: half written, half deleted, or junk."""
    for path in sorted(folder.iterdir()):
        if not path.name.isdigit():
            continue
        missing = [name for name in (_COMMITTED, *_ITEMS) if not (path / name).exists()]
        if missing:
            yield int(path.name), f"{', '.join(missing)} missing"


def _stored(path: Path) -> dict[str, Any]:
    """Name to shape and dtype of every array in a checkpoint."""
    with ocp.PyTreeCheckpointer() as reader:
        return dict(reader.metadata(path / "state").item_metadata.tree)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def compare(saved: Mapping[str, Any], target: Mapping[str, Any], where: Path) -> None:
    """Raises CheckpointError unless both have the same names and shapes."""
    problems = [f"{name} is not wanted" for name in saved if name not in target]
    problems += [f"{name} is missing" for name in target if name not in saved]
    problems += [
        f"{name} has shape {tuple(saved[name].shape)}, wanted {tuple(target[name].shape)}"
        for name in target
        if name in saved and tuple(saved[name].shape) != tuple(target[name].shape)
    ]
    if problems:
        raise CheckpointError(
            f"{where} holds another model's state: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; use another --workdir, or the config this one was made with"
        )


def load_state(workdir: Path, step: int | None = None) -> tuple[int, dict[str, np.ndarray]]:
    """A state of a workdir as NumPy arrays, read without its config; the newest valid one, or
    that of ``step``.

    Nothing is written or moved.

    Raises:
      CheckpointError: there is no such checkpoint, or no valid one.
    """
    folder = workdir.resolve() / "checkpoints"
    problems = dict(_invalid(folder)) if folder.is_dir() else {}
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []
    valid = sorted(set(steps) - set(problems), reverse=True)
    if step is not None and step not in valid:
        have = ", ".join(map(str, sorted(valid))) or "none"
        raise CheckpointError(f"{folder} holds no valid checkpoint of step {step}; it has {have}")
    for candidate in valid if step is None else [step]:
        try:
            path = folder / str(candidate)
            as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in _stored(path)}
            with ocp.PyTreeCheckpointer() as reader:
                return candidate, reader.restore(path / "state", restore_args=as_numpy)
        except Exception as error:
            log.warning("checkpoint %s is not readable: %s", folder / str(candidate), error)
    raise CheckpointError(f"{folder} holds no valid checkpoint")


def main(arguments: list[str]) -> int:
    """Command line; see the module's docstring."""
    if len(arguments) != 2 or arguments[0] not in ("digest", "list"):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    # Orbax warns that a bare item has no metadata of its own, which is as it should be.
    logging.getLogger("absl").setLevel(logging.ERROR)
    workdir = Path(arguments[1])
    try:
        if arguments[0] == "digest":
            step, state = load_state(workdir)
            print(f"{digest(state)}  step {step}")
            return 0
        folder = workdir / "checkpoints"
        if not folder.is_dir():
            raise CheckpointError(f"{folder} does not exist")
        problems = dict(_invalid(folder))
        for step in sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()):
            print(f"{step}  {problems.get(step, 'complete')}")
        return 0
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
