"""What a checkpoint must contain: every array's checksum, and the meta data, sealed by SHA-256."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision.checkpoint.checksum import as_text, checksum, total
from vision.config.errors import UserError, caused_by
from vision.config.old_names import current_array
from vision.parallel import cluster

ITEM, FILE = "manifest", "manifest.json"


class CheckpointError(UserError):
    """A checkpoint cannot be written or read; the message names it and the way out."""


class NoValidCheckpointError(CheckpointError):
    """A checkpoint is damaged, or there is none that is not."""

    status = 1


class DamagedError(Exception):
    """What a checkpoint holds is not what was saved; the message says what."""


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for what the file system refuses: it proves no damage, so nothing is moved."""
    problem = CheckpointError(
        f"{error.filename or path} cannot be read ({error.strerror}): mend that and start again; "
        "nothing was moved"
    )
    return caused_by(problem, error)


@dataclasses.dataclass(frozen=True)
class ArrayEntry:
    """One array of a checkpoint.

    Attributes:
      dtype: its name.
      shape: of the array.
      checksum: of its bytes, as text.
    """

    dtype: str
    shape: tuple[int, ...]
    checksum: str


@dataclasses.dataclass(frozen=True)
class RunIdentity:
    """What tells one run from another.

    Attributes:
      config: SHA-256 of its ``config.json``, in hexadecimal.
      seed: of its config; None where that has none.
    """

    config: str
    seed: int | None


@dataclasses.dataclass(frozen=True)
class CheckpointManifest:
    """What stands beside the arrays of a checkpoint.

    Attributes:
      leaves: name to array.
      meta: whatever the loop stored beside the state.
      step: number of the checkpoint; None where an old one does not say.
      run: the run that saved it; None where an old one does not say.
      stored_names: name to what the checkpoint calls it, where that is an older name.
    """

    leaves: Mapping[str, ArrayEntry]
    meta: Mapping[str, Any]
    step: int | None = None
    run: RunIdentity | None = None
    stored_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, step_folder: Path) -> CheckpointManifest:
        """The manifest of a checkpoint.

        Raises:
          DamagedError: it is missing or not what was written.
          CheckpointError: the file system refuses to give it out, which proves no damage.
        """
        path = step_folder / ITEM / FILE
        try:
            seal, _, body = path.read_bytes().partition(b"\n")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DamagedError(f"{ITEM}/{FILE} is missing: {error.strerror}") from error
        except OSError as error:
            raise unreadable(path, error) from error
        if seal != hashlib.sha256(body).hexdigest().encode():
            raise DamagedError(f"{ITEM}/{FILE} is not what was written")
        plain = json.loads(body)
        names = {current_array(name): name for name in plain["leaves"]}
        leaves = {}
        for name, stored_name in names.items():
            dtype, shape, sums = plain["leaves"][stored_name]
            leaves[name] = ArrayEntry(dtype, tuple(shape), sums)
        older = {name: old for name, old in names.items() if name != old}
        run = RunIdentity(**plain["run"]) if plain.get("run") else None
        step = plain.get("step", plain["meta"].get("step"))
        return cls(leaves, plain["meta"], step, run, older)

    def encode(self) -> bytes:
        """A line with the SHA-256 of what follows, then JSON."""
        leaves = {name: dataclasses.astuple(leaf) for name, leaf in self.leaves.items()}
        run = None if self.run is None else dataclasses.asdict(self.run)
        plain = {"step": self.step, "run": run, "meta": dict(self.meta), "leaves": leaves}
        body = json.dumps(plain).encode()
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    def differing(self, arrays: Mapping[str, jax.Array | np.ndarray]) -> list[str]:
        """Names in ``arrays`` whose bits, shape or dtype are not those of the manifest.

        Arrays that are split between processes are compared by all of these processes together.
        """
        started = {name: checksum(x) for name, x in arrays.items()}
        sums = {name: total(parts) for name, parts in started.items()}
        split = [x for x in arrays.values() if isinstance(x, jax.Array)]
        everyone = cluster.gather(sums) if split else [sums]
        return [
            name
            for name, x in arrays.items()
            if ArrayEntry(x.dtype.name, tuple(x.shape), as_text(s[name] for s in everyone))
            != self.leaves.get(name)
        ]
