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

from vision.core.checksum import as_text, checksum

ITEM, _FILE = "manifest", "manifest.json"


class DamagedError(Exception):
    """What a checkpoint holds is not what was saved; the message says what."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array: its dtype's name, its shape, its ``checksum`` as text."""

    dtype: str
    shape: tuple[int, ...]
    checksum: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Name to array, and whatever the loop stored beside the state."""

    leaves: Mapping[str, Leaf]
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, step_folder: Path) -> Manifest:
        """Raises DamagedError if it is missing or not what was written."""
        path = step_folder / ITEM / _FILE
        try:
            seal, _, body = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise DamagedError(f"{ITEM}/{_FILE} cannot be read: {error.strerror}") from error
        if seal != hashlib.sha256(body).hexdigest().encode():
            raise DamagedError(f"{ITEM}/{_FILE} is not what was written")
        plain = json.loads(body)
        leaves = {
            name: Leaf(dtype, tuple(shape), sums)
            for name, (dtype, shape, sums) in plain["leaves"].items()
        }
        return cls(leaves, plain["meta"])

    def encode(self) -> bytes:
        """A line with the SHA-256 of what follows, then JSON."""
        leaves = {name: dataclasses.astuple(leaf) for name, leaf in self.leaves.items()}
        body = json.dumps({"meta": dict(self.meta), "leaves": leaves}).encode()
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    def differing(self, arrays: Mapping[str, jax.Array | np.ndarray]) -> list[str]:
        """Names in ``arrays`` whose bits, shape or dtype are not those of the manifest."""
        sums = {name: checksum(x) for name, x in arrays.items()}
        return [
            name
            for name, x in arrays.items()
            if Leaf(x.dtype.name, tuple(x.shape), as_text(sums[name])) != self.leaves.get(name)
        ]


class ManifestHandler(ocp.AsyncCheckpointHandler):
    """Lets Orbax write a manifest as an item of a checkpoint, which is committed with it or not
    at all. The checksums are waited for in Orbax's thread, not in the loop."""

    def __init__(self, **_: Any):
        """Orbax passes its options; none matters here."""

    async def async_save(
        self, directory: Any, args: ManifestSave
    ) -> Iterable[future.Future] | None:
        """Waits for the checksums and writes in the background; process 0 writes."""

        async def write() -> None:
            sums = args.sums.result()
            leaves = {
                name: Leaf(x.dtype.name, tuple(x.shape), as_text(sums[name]))
                for name, x in args.abstract.items()
            }
            (directory / _FILE).write_bytes(Manifest(leaves, args.meta).encode())

        if jax.process_index() != 0:
            return None
        return [future.CommitFutureAwaitingContractedSignals(write(), name="manifest")]

    def save(self, directory: Any, args: ManifestSave) -> None:
        raise NotImplementedError("manifests are written by asynchronous saves only")

    def restore(self, directory: Any, args: Any = None) -> None:
        raise NotImplementedError("read manifests with Manifest.read")


# Orbax wants arguments for reading as well, although Manifest.read does it.
@ocp.args.register_with_handler(ManifestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class ManifestSave(ocp.args.CheckpointArgs):
    """The manifest of arrays whose checksums are not there yet.

    Attributes:
      abstract: name to shape and dtype.
      meta: JSON beside them.
      sums: name to ``checksum``, once it is known.
    """

    abstract: Mapping[str, jax.ShapeDtypeStruct]
    meta: Mapping[str, Any]
    sums: concurrent.futures.Future[Mapping[str, jax.Array | np.ndarray]]

    @classmethod
    def of(cls, arrays: Mapping[str, jax.Array | np.ndarray], meta: Mapping[str, Any]):
        """Holds on to no array."""
        abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
        # A copy, since the caller may change it; and what JSON cannot hold fails here.
        return cls(abstract, json.loads(json.dumps(dict(meta))), concurrent.futures.Future())
