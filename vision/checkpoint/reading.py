"""Reading checkpoints from disk: finding, loading, comparing, verifying. Moves no files."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from vision.checkpoint.identity import check_identity
from vision.checkpoint.manifest import (
    ITEM,
    CheckpointError,
    CheckpointManifest,
    DamagedError,
    NoValidCheckpointError,
    unreadable,
)
from vision.parallel.mesh import path_of

Tree = Any
T = TypeVar("T")
log = logging.getLogger(__name__)

STATE = "state"
_COMMITTED = "_CHECKPOINT_METADATA"
_DETAILS = re.compile(r" \[[a-z_]+(?:\[\d+\])?='")
_STEP = re.compile(r"0|[1-9][0-9]*", re.ASCII)


def flatten(tree: Tree) -> dict[str, Any]:
    """Path such as ``params.model.head.kernel`` to leaf, in the order of ``jax.tree.leaves``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(path).replace("/", "."): leaf for path, leaf in leaves}


def folder_of(workdir: Path) -> Path:
    return workdir.resolve() / "checkpoints"


def step_numbers(folder: Path) -> list[int]:
    """Numbers that name something in a folder of checkpoints, in order: ``60``.

    Other names are left alone: ``0060``, ``60 copy`` and digits of other scripts are no steps.

    Raises:
      CheckpointError: the folder cannot be listed.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def incomplete(folder: Path) -> Iterator[tuple[int, str]]:
    """Steps that lack a part of a checkpoint: half written, half deleted, or something else.

    Raises:
      CheckpointError: it cannot be told whether a part is there.
    """
    for step in step_numbers(folder):
        path = folder / str(step)
        try:
            missing = [name for name in (_COMMITTED, STATE, ITEM) if not _exists(path / name)]
            there = _exists(path)
        except OSError as error:
            raise unreadable(path, error) from error
        if missing and there:
            yield step, f"{', '.join(missing)} missing"


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def refused_by_file_system(step_folder: Path) -> CheckpointError | None:
    """The error for a checkpoint with a file that exists and that the file system does not give
    out (permissions, a broken mount, too many open files); None where all files can be read."""

    def stop(error: OSError) -> None:
        raise error

    try:
        for folder, _, names in os.walk(step_folder, onerror=stop):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    while file.read(1 << 24):
                        pass
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return unreadable(step_folder, error)
    return None


def complete(folder: Path) -> list[int]:
    """Steps with a complete checkpoint, oldest first; its contents may still be damaged."""
    if not folder.is_dir():
        return []
    broken = dict(incomplete(folder))
    return [step for step in step_numbers(folder) if step not in broken]


def read(
    step_folder: Path,
    target: Mapping[str, jax.ShapeDtypeStruct | None],
    stored_names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Arrays of a checkpoint by name, unverified; others are not read.

    Args:
      step_folder: ``checkpoints/<step>``.
      target: name to shape, dtype and sharding, or to None for a NumPy array.
      stored_names: of its ``CheckpointManifest``, for checkpoints that have older names.

    Raises:
      DamagedError: an array is not there.
      Exception: whatever Orbax and the file system raise when files are damaged.
    """
    if not target:
        return {}
    import orbax.checkpoint as ocp  # here: see manifest_save
    from etils import epath

    from vision.checkpoint.orbax_internals import stop_leaks

    stop_leaks()
    stored = {name: (stored_names or {}).get(name, name) for name in target}
    arguments = {
        stored[name]: ocp.RestoreArgs(restore_type=np.ndarray)
        if leaf is None
        else ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
        for name, leaf in target.items()
    }
    # The handler itself: what is around it in Orbax waits for other processes, which would never
    # come if one of them alone met a damaged file.
    arrays = ocp.PyTreeCheckpointHandler().restore(
        epath.Path(step_folder.absolute() / STATE),
        args=ocp.args.PyTreeRestore(
            item={name: jax.ShapeDtypeStruct((), np.float32) for name in arguments},
            restore_args=arguments,
            partial_restore=True,
        ),
    )
    arrays = {name: arrays.get(old) for name, old in stored.items()}
    # Of what its own description does not list, Orbax gives back the template.
    kinds = (np.ndarray, jax.Array)
    if missing := [name for name, x in arrays.items() if not isinstance(x, kinds)]:
        raise DamagedError(_named(dict.fromkeys(missing, "missing")))
    return arrays


def read_verified(
    step_folder: Path, manifest: CheckpointManifest, pattern: str = ""
) -> dict[str, Any]:
    """Arrays whose name matches ``pattern``, as NumPy arrays.

    Raises:
      DamagedError: one cannot be read, or is not what was saved; it is named.
      CheckpointError: the file system refuses to give out a file of it.
    """
    names = [name for name in manifest.leaves if re.search(pattern, name)]
    try:
        arrays = read(step_folder, dict.fromkeys(names), manifest.stored_names)
    except Exception as error:
        if (refused := refused_by_file_system(step_folder)) is not None:
            raise refused from error
        bad = {
            name: problem for name in names if (problem := _unreadable(step_folder, manifest, name))
        }
        raise DamagedError(_named(bad) if bad else first_line(error)) from error
    if differing := manifest.differing(arrays):
        raise DamagedError(_named(dict.fromkeys(differing, "not what was saved")))
    return arrays


def _unreadable(step_folder: Path, manifest: CheckpointManifest, name: str) -> str | None:
    try:
        read(step_folder, {name: None}, manifest.stored_names)
    except Exception as error:
        return f"unreadable ({first_line(error)})"
    return None


def _named(problems: Mapping[str, str], shown: int = 8) -> str:
    listed = [f"{name} {problem}" for name, problem in problems.items()]
    more = [f"and {len(listed) - shown} more"] if len(listed) > shown else []
    return ", ".join(listed[:shown] + more)


def first_line(error: BaseException) -> str:
    """What an error says, without the kilobytes of description that TensorStore adds."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return _DETAILS.split(line, maxsplit=1)[0]


def compare(saved: Mapping[str, Any], target: Mapping[str, Any], where: Path) -> None:
    """Raises CheckpointError unless both have the same names, shapes and dtypes."""
    problems = [f"{name} is not wanted" for name in saved if name not in target]
    problems += [f"{name} is missing" for name in target if name not in saved]
    for name, wanted in target.items():
        if name in saved and (difference := _difference(saved[name], wanted)):
            problems.append(f"{name} has {difference}")
    if problems:
        raise CheckpointError(
            f"{where} holds another model's state: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; use another --workdir, or the config this one was made with"
        )


def _difference(saved: Any, wanted: Any) -> str | None:
    if tuple(saved.shape) != tuple(wanted.shape):
        return f"shape {tuple(saved.shape)}, wanted {tuple(wanted.shape)}"
    if str(saved.dtype) != str(wanted.dtype):
        return f"dtype {saved.dtype}, wanted {wanted.dtype}"
    return None


def load_state(
    workdir: Path, step: int | None = None, pattern: str = ""
) -> tuple[int, dict[str, np.ndarray]]:
    """A state of a workdir as NumPy arrays, verified, read without its config.

    Nothing is written or moved.

    Args:
      workdir: folder of a run.
      step: which state; None for the newest valid one.
      pattern: regular expression; only arrays in whose name it is found are read.

    Raises:
      CheckpointError: there is no such checkpoint, no valid one, or one that belongs to another
        step or run.
    """
    step, arrays, _ = _load(workdir, step, pattern)
    return step, arrays


def _load(
    workdir: Path, step: int | None, pattern: str
) -> tuple[int, dict[str, np.ndarray], CheckpointManifest]:
    """``load_state``, and the manifest of the checkpoint."""
    folder = folder_of(workdir)
    gone: set[int] = set()
    while True:
        steps = complete(folder)
        if step is not None and step not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(
                f"{folder} holds no valid checkpoint of step {step}; it has {have}"
            )
        damaged = False
        for candidate in reversed(steps) if step is None else [step]:
            path = folder / str(candidate)
            try:
                manifest = CheckpointManifest.read(path)
                check_identity(manifest, path, workdir, strict=False)
                return candidate, read_verified(path, manifest, pattern), manifest
            except DamagedError as error:
                if not path.exists() and candidate not in gone:
                    # A run that goes on beside this has deleted it and has newer ones.
                    gone.add(candidate)
                    break
                damaged = True
                log.warning("checkpoint %s is not usable: %s", path, error)
                if step is not None:
                    raise NoValidCheckpointError(
                        f"checkpoint {path} is not usable: {error}; the steps there are "
                        f"{', '.join(map(str, steps))}"
                    ) from error
        else:
            found = "; those that it has are damaged" if damaged else ""
            raise NoValidCheckpointError(
                f"{folder} holds no valid checkpoint{found}: training saves them, as the config's "
                "checkpoints.every says and at the end"
            )


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What ``load_matching`` did.

    Attributes:
      step: step of the checkpoint that was read.
      taken: names of the arrays that come from it.
      kept: names of the others, which are as they were.
      unused: names of arrays in the checkpoint that were not read.
    """

    step: int
    taken: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]


def load_matching(
    workdir: Path, pattern: str, into: T, step: int | None = None
) -> tuple[T, Loaded]:
    """Replaces the leaves of a state in whose name ``pattern`` is found by those of another run.

    Only these are read. They keep the dtype and the sharding of the leaves that they replace.

    Args:
      workdir: folder of the run to take from.
      pattern: regular expression, searched in names such as ``params.model.head.kernel``.
      into: a tree of arrays, a fresh state for instance.
      step: which checkpoint; None for the newest valid one.

    Raises:
      CheckpointError: no valid checkpoint; nothing matches; a matching name is on one side only,
        or has another shape there.
    """
    target = flatten(into)
    replaced = {name: leaf for name, leaf in target.items() if re.search(pattern, name)}
    loaded_step, arrays, manifest = _load(workdir, step, pattern)
    where = folder_of(workdir) / str(loaded_step)
    problems = [f"{name} is not in {where}" for name in replaced if name not in arrays]
    problems += [f"{name} is in {where} but not in this model" for name in arrays.keys() - replaced]
    problems += [
        f"{name} has shape {arrays[name].shape} in {where} and {tuple(leaf.shape)} here"
        for name, leaf in replaced.items()
        if name in arrays and arrays[name].shape != tuple(leaf.shape)
    ]
    if not replaced and not arrays:
        problems = [f"no array there or here; names look like {next(iter(target), 'nothing')}"]
    if problems:
        raise CheckpointError(
            f"{pattern!r} does not fit both models: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; narrow the pattern"
        )
    leaves = [
        _like(arrays[name], leaf) if name in arrays else leaf for name, leaf in target.items()
    ]
    report = Loaded(
        step=loaded_step,
        taken=tuple(name for name in target if name in arrays),
        kept=tuple(name for name in target if name not in arrays),
        unused=tuple(name for name in manifest.leaves if name not in arrays),
    )
    return jax.tree.unflatten(jax.tree.structure(into), leaves), report


def _like(value: np.ndarray, leaf: Any) -> Any:
    value = value.astype(leaf.dtype)
    return value if isinstance(leaf, np.ndarray) else jax.device_put(value, leaf.sharding)
