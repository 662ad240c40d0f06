"""What a checkpoint must contain: every array's checksum, and the meta data, sealed by SHA-256."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import future

from vision.checkpoint.checksum import Sums, as_text, checksum, total
from vision.config.errors import UserError, caused_by
from vision.config.old_names import current_array
from vision.parallel import cluster

ITEM, _FILE = "manifest", "manifest.json"


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
        path = step_folder / ITEM / _FILE
        try:
            seal, _, body = path.read_bytes().partition(b"\n")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DamagedError(f"{ITEM}/{_FILE} is missing: {error.strerror}") from error
        except OSError as error:
            raise unreadable(path, error) from error
        if seal != hashlib.sha256(body).hexdigest().encode():
            raise DamagedError(f"{ITEM}/{_FILE} is not what was written")
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


class ManifestHandler(ocp.AsyncCheckpointHandler):
    """Lets Orbax write a manifest as an item of a checkpoint, which is committed with it or not
    at all. The checksums are waited for in Orbax's thread, not in the loop."""

    def __init__(self, **_: Any):
        """Orbax passes its options; none matters here."""

    async def async_save(
        self, directory: Any, args: ManifestSave
    ) -> Iterable[future.Future] | None:
        """Waits for the checksums and writes in the background; process 0 writes for all."""

        async def write() -> None:
            sums = {name: total(parts) for name, parts in args.sums.result().items()}
            everyone = cluster.collect(args.name, sums)
            if everyone is None:
                return
            leaves = {
                name: ArrayEntry(x.dtype.name, tuple(x.shape), as_text(s[name] for s in everyone))
                for name, x in args.abstract.items()
            }
            manifest = CheckpointManifest(leaves, args.meta, args.step, args.run)
            (directory / _FILE).write_bytes(manifest.encode())

        return [future.CommitFutureAwaitingContractedSignals(write(), name="manifest")]

    def save(self, directory: Any, args: ManifestSave) -> None:
        raise NotImplementedError("manifests are written by asynchronous saves only")

    def restore(self, directory: Any, args: Any = None) -> None:
        raise NotImplementedError("read manifests with CheckpointManifest.read")


# Orbax wants arguments for reading as well, although CheckpointManifest.read does it.
@ocp.args.register_with_handler(ManifestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class ManifestSave(ocp.args.CheckpointArgs):
    """The manifest of arrays whose checksums are not there yet.

    Attributes:
      abstract: name to shape and dtype.
      meta: JSON beside them.
      name: of this save, the same in all processes and for no other save.
      step: number of the checkpoint.
      run: the run that saves it; None for none.
      sums: array's name to the parts of its ``checksum``, once they are under way.
    """

    abstract: Mapping[str, jax.ShapeDtypeStruct]
    meta: Mapping[str, Any]
    name: str
    step: int
    run: RunIdentity | None
    sums: concurrent.futures.Future[Mapping[str, Sums]]

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, jax.Array | np.ndarray],
        meta: Mapping[str, Any],
        name: str,
        step: int,
        run: RunIdentity | None,
    ) -> ManifestSave:
        """Holds on to no array."""
        abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
        # A copy, since the caller may change it; and what JSON cannot hold fails here.
        copied = json.loads(json.dumps(dict(meta)))
        return cls(abstract, copied, name, step, run, concurrent.futures.Future())
