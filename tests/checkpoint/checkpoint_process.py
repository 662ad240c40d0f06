"""One process of a run that saves or restores a sharded state; run by test_checkpoint_processes.

python checkpoint_process.py save|restore|race WORKDIR FSDP COORDINATOR COUNT INDEX
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.checkpoint.manifest import CheckpointManifest
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.parallel.mesh import Mesh

SHAPES = {"kernel": (8, 6), "bias": (6,), "step": ()}


def value(name: str, step: int) -> np.ndarray:
    return np.random.default_rng([step, len(name)]).normal(size=SHAPES[name]).astype(np.float32)


def layout(mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    specs = {"kernel": P("fsdp"), "bias": P(), "step": P()}
    return {
        name: jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, specs[name]))
        for name, shape in SHAPES.items()
    }


def save(workdir: Path, mesh: jax.sharding.Mesh) -> None:
    store = CheckpointStore(workdir, Checkpoints(keep=2))
    for step in (1, 2, 3, 4):
        state = {
            name: jax.make_array_from_callback(
                x.shape, x.sharding, lambda i, n=name, s=step: value(n, s)[i]
            )
            for name, x in layout(mesh).items()
        }
        assert store.save(step, state, {"step": step}, wait=step == 4)
    store.close()


def restore(workdir: Path, mesh: jax.sharding.Mesh) -> str:
    """Which step was restored, and which there are afterwards."""
    store = CheckpointStore(workdir, Checkpoints(keep=2))
    abstract = layout(mesh)
    restored = store.restore(abstract)
    assert restored is not None
    state: Any = restored[0]
    step = restored[1]["step"]
    for name, array in state.items():
        assert array.sharding == abstract[name].sharding
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, value(name, step)[shard.index])
    store.close()
    return f"{step} of {store.steps()}"


def race(workdir: Path, mesh: jax.sharding.Mesh) -> str:
    """The step that is restored while the newest one is being saved slowly."""
    store = CheckpointStore(workdir, Checkpoints(keep=2))
    encode = CheckpointManifest.encode

    def slow(manifest: CheckpointManifest) -> bytes:
        time.sleep(2)
        return encode(manifest)

    CheckpointManifest.encode = slow  # pyright: ignore[reportAttributeAccessIssue]
    for step in (1, 2):
        state = {
            name: jax.make_array_from_callback(
                x.shape, x.sharding, lambda i, n=name, s=step: value(n, s)[i]
            )
            for name, x in layout(mesh).items()
        }
        assert store.save(step, state, {"step": step}, wait=step == 1)
    restored = store.restore(layout(mesh))
    store.close()
    assert restored is not None
    return str(restored[1]["step"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)
    command, where, fsdp, coordinator, count, index = sys.argv[1:]
    jax.distributed.initialize(coordinator, int(count), int(index))
    devices = Mesh(data=-1, fsdp=int(fsdp)).build()
    if command == "save":
        save(Path(where), devices)
    elif command == "race":
        print(race(Path(where), devices), flush=True)
    else:
        print(restore(Path(where), devices), flush=True)
