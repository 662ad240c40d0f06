"""Command line of checkpoints: verify, list, digest, export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from vision.checkpoint.identity import check_identity
from vision.checkpoint.manifest import CheckpointManifest, DamagedError
from vision.checkpoint.reading import (
    CheckpointError,
    folder_of,
    incomplete,
    load_state,
    read_verified,
    step_numbers,
)
from vision.checkpoint.retention import named_step
from vision.checkpoint.usage import FLAGS, USAGE
from vision.config.cli import UsageError, parse, run_main
from vision.config.errors import caused_by
from vision.config.files import replace_file
from vision.train.state import digest

_COMMANDS = ("verify", "list", "digest", "export")


def main(arguments: list[str]) -> int:
    """Runs one command; returns its exit status, also of what goes wrong."""
    return run_main(_run, arguments)


def _run(arguments: list[str]) -> int:
    names = [x for x in arguments if not x.startswith("-")]
    flags = parse([x for x in arguments if x.startswith("-")], USAGE, (), **FLAGS)
    if len(names) != 2 or names[0] not in _COMMANDS:
        raise UsageError(f"give one of {', '.join(_COMMANDS)} and a workdir (see --help)")
    command, workdir = names[0], Path(names[1])
    step = named_step(workdir, flags.step or None)
    if command in ("verify", "list"):
        return verify(workdir, step, read=command == "verify")
    if command == "digest":
        loaded_step, state = load_state(workdir, step)
        print(f"{digest(state)}  step {loaded_step}")
        return 0
    if not isinstance(flags.out, str):
        raise UsageError("export needs --out=FILE.safetensors")
    entry = flags.extra_state or None
    export(workdir, Path(flags.out), step, pattern=flags.params or "", entry=entry)
    return 0


def verify(workdir: Path, step: int | None = None, *, read: bool = True) -> int:
    """Prints a line per checkpoint, ``ok`` or what is wrong with it; moves nothing.

    Args:
      workdir: folder of a run.
      step: only this one.
      read: read all arrays, too; otherwise only look whether the parts are there.

    Returns:
      1 if ``read`` and one is damaged, else 0.

    Raises:
      CheckpointError: there is nothing to look at.
    """
    folder = folder_of(workdir)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} does not exist")
    problems = dict(incomplete(folder))
    steps = step_numbers(folder)
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} has no step {step}; it has {steps}")
    damaged = False
    for number in steps if step is None else [step]:
        problem = problems.get(number)
        if read and problem is None:
            try:
                manifest = CheckpointManifest.read(folder / str(number))
                check_identity(manifest, folder / str(number), workdir, strict=False)
                read_verified(folder / str(number), manifest)
            except (DamagedError, CheckpointError) as error:
                if not (folder / str(number)).exists():
                    continue  # deleted meanwhile by a run that goes on
                problem = str(error)
        print(f"{number}  {problem or ('ok' if read else 'complete')}")
        damaged |= read and problem is not None
    return int(damaged)


def export(
    workdir: Path,
    out: Path,
    step: int | None = None,
    *,
    pattern: str = "",
    entry: str | None = None,
) -> None:
    """Writes the variables of a model as one safetensors file and prints what is in it.

    Args:
      workdir: folder of a run.
      out: file to write; it is there whole or not at all.
      step, pattern, entry: see ``exported``.

    Raises:
      CheckpointError: no valid checkpoint, nothing to write, or the file cannot be written.
    """
    from safetensors.numpy import save

    arrays, metadata = exported(workdir, step, pattern=pattern, entry=entry)
    try:
        with replace_file(out) as temporary:
            temporary.write_bytes(save(arrays, metadata))
    except OSError as error:
        problem = CheckpointError(f"{out} cannot be written: {error.strerror}")
        raise caused_by(problem, error) from error
    elements, size = sum(x.size for x in arrays.values()), sum(x.nbytes for x in arrays.values())
    print(
        f"{out}: {len(arrays)} arrays, {elements:,} elements, {size:,} bytes; "
        f"extra_state {metadata['extra_state']!r} of step {metadata['step']}"
    )


def exported(
    workdir: Path, step: int | None = None, *, pattern: str = "", entry: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The variables of a model, and texts about them for the file that they go to.

    Names are ``params.model.head.kernel`` and ``model_state...``, wherever they are from. The
    texts are the step, the entry of ``extra_state``, the workdir's name, the resolved config and
    the digest of the arrays.

    Args:
      workdir: folder of a run.
      step: which checkpoint; None for the newest valid one.
      pattern: only names in which this regular expression is found.
      entry: of ``extra_state``: ``ema``, or another that holds ``params``; ``none`` for what the
        optimizer works on; None for ``ema`` where there is one.

    Raises:
      CheckpointError: no valid checkpoint, or nothing in it that is asked for.
    """
    folder = folder_of(workdir)
    inside = r"^(extra_state\.[^.]+\.)?(params|model_state)\."
    loaded_step, state = load_state(workdir, step, inside)
    entries = {name.split(".")[1] for name in state if name.startswith("extra_state.")}
    if entry is None:
        entry = "ema" if "ema" in entries else "none"
    if entry != "none" and entry not in entries:
        has = ", ".join(["none", *sorted(entries)])
        raise CheckpointError(
            f"{folder / str(loaded_step)} has no extra_state {entry!r}; it has {has}"
        )
    prefix = "" if entry == "none" else f"extra_state.{entry}."
    # Not ascontiguousarray, which makes vectors of scalars.
    arrays = {
        name.removeprefix(prefix): np.asarray(value, order="C")
        for name, value in state.items()
        if name.startswith((f"{prefix}params.", f"{prefix}model_state."))
    }
    arrays = {name: value for name, value in arrays.items() if re.search(pattern, name)}
    if not arrays:
        raise CheckpointError(
            f"no name in extra_state {entry!r} contains {pattern!r}; nothing to export"
        )
    config = workdir / "config.json"
    return arrays, {
        "step": str(loaded_step),
        "extra_state": entry,
        "workdir": workdir.resolve().name,
        "config": config.read_text(encoding="utf-8") if config.exists() else json.dumps(None),
        "digest": digest(arrays),
    }
