"""Writing a manifest beside the arrays, as an item of Orbax's.

Apart from ``manifest``: Orbax takes a third of a second to import, which what only reads a config
does not wait for.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import future

from vision.checkpoint.checksum import Sums, as_text, total
from vision.checkpoint.manifest import FILE, ArrayEntry, CheckpointManifest, RunIdentity
from vision.parallel import cluster


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
            (directory / FILE).write_bytes(manifest.encode())

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
