"""What several devices hold is saved whole where it is small, and comes back either way."""

from __future__ import annotations

import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.parallel.mesh import Mesh


@pytest.mark.parametrize(("rows", "cut"), [(8, False), (8 * 127, True)])
def test_small_arrays_are_not_cut_among_devices(
    rows: int, cut: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Parts of 64 KiB and more are; to cut them is a program that is compiled."""
    sharding = NamedSharding(Mesh().build(), PartitionSpec())
    values = np.random.default_rng(0).normal(size=(rows, 131)).astype(np.float32)
    state = {"x": jax.device_put(values, sharding)}
    store = CheckpointStore(tmp_path, Checkpoints())
    with jax.log_compiles(True), caplog.at_level(logging.WARNING):
        assert store.save(1, state, {}, wait=True)
    programs = [each.getMessage() for each in caplog.records if "Compiling" in each.getMessage()]
    assert any("slice" in each for each in programs) == cut
    abstract = {"x": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)}
    restored = store.restore(abstract)
    store.close()
    assert restored is not None
    np.testing.assert_array_equal(restored[0]["x"], values)
