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
from vision.config.old_names import current_array
from vision.parallel import cluster

ITEM, _FILE = "manifest", "manifest.json"


class DamagedError(Exception):
    """What a checkpoint holds is not what was saved; the message says what."""


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
class CheckpointManifest:
    """What stands beside the arrays of a checkpoint.

    Attributes:
      leaves: name to array.
      meta: whatever the loop stored beside the state.
      stored_names: name to what the checkpoint calls it, where that is an older name.
    """

    leaves: Mapping[str, ArrayEntry]
    meta: Mapping[str, Any]
    stored_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, step_folder: Path) -> CheckpointManifest:
        """Raises DamagedError if it is missing or not what was written."""
        path = step_folder / ITEM / _FILE
        try:
            seal, _, body = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise DamagedError(f"{ITEM}/{_FILE} cannot be read: {error.strerror}") from error
        if seal != hashlib.sha256(body).hexdigest().encode():
            raise DamagedError(f"{ITEM}/{_FILE} is not what was written")
        plain = json.loads(body)
        names = {current_array(name): name for name in plain["leaves"]}
        leaves = {}
        for name, stored_name in names.items():
            dtype, shape, sums = plain["leaves"][stored_name]
            leaves[name] = ArrayEntry(dtype, tuple(shape), sums)
        older = {name: old for name, old in names.items() if name != old}
        return cls(leaves, plain["meta"], older)

    def encode(self) -> bytes:
        """A line with the SHA-256 of what follows, then JSON."""
        leaves = {name: dataclasses.astuple(leaf) for name, leaf in self.leaves.items()}
        body = json.dumps({"meta": dict(self.meta), "leaves": leaves}).encode()
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
            (directory / _FILE).write_bytes(CheckpointManifest(leaves, args.meta).encode())

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
      sums: array's name to the parts of its ``checksum``, once they are under way.
    """

    abstract: Mapping[str, jax.ShapeDtypeStruct]
    meta: Mapping[str, Any]
    name: str
    sums: concurrent.futures.Future[Mapping[str, Sums]]

    @classmethod
    def of(
        cls, arrays: Mapping[str, jax.Array | np.ndarray], meta: Mapping[str, Any], name: str
    ) -> ManifestSave:
        """Holds on to no array."""
        abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
        # A copy, since the caller may change it; and what JSON cannot hold fails here.
        copied = json.loads(json.dumps(dict(meta)))
        return cls(abstract, copied, name, concurrent.futures.Future())
