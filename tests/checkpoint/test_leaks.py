"""A save leaves no memory behind: what Orbax asked TensorStore for, which never frees its texts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import tensorstore
from orbax.checkpoint._src.serialization import tensorstore_utils

from vision.checkpoint import orbax_internals
from vision.checkpoint.store import Checkpoints, CheckpointStore


def blocks_per_call(call: Callable[[], Any], calls: int = 300) -> float:
    """Python's memory blocks that every call leaves behind."""
    for _ in range(3):
        call()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(calls):
        call()
    gc.collect()
    return (sys.getallocatedblocks() - before) / calls


def test_what_orbax_asks_leaves_nothing_behind(tmp_path: Path):
    place = {"driver": "file", "path": f"{tmp_path}/"}
    asked = tensorstore.KvStore.Spec(place).to_json()
    assert orbax_internals._spec(place).to_json() == asked  # the same answer
    orbax_internals.stop_leaks()
    first = tensorstore_utils._build_ocdbt_kvstore_tspec
    orbax_internals.stop_leaks()
    assert tensorstore_utils._build_ocdbt_kvstore_tspec is first
    assert blocks_per_call(tensorstore_utils.get_tensorstore_raw_bytes) < 1
    assert blocks_per_call(lambda: first(directory=str(tmp_path), name="params.kernel")) < 1
    assert isinstance(orbax_internals._spec({"driver": "memory"}), tensorstore.KvStore.Spec)


@pytest.mark.slow
def test_saves_leave_nothing_behind(tmp_path: Path):
    state = {f"array{i}": jnp.full((4, 4), float(i)) for i in range(30)}
    store = CheckpointStore(tmp_path, Checkpoints())
    steps = iter(range(1, 1000))
    # It was 620 for every save of so many arrays.
    grown = blocks_per_call(lambda: store.save(next(steps), state, {}, wait=True), calls=60)
    store.close()
    assert grown < 60
