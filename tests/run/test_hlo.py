"""Compiled programs read as text: loops, slices, on-chip memory, exchanges and their overlap."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.run import hlo

# As a TPU's compiler writes it: memory spaces, tiles, asynchronous copies and fused exchanges.
TPU = (Path(__file__).resolve().parents[1] / "golden" / "tpu_program.hlo").read_text()


def test_what_a_tpu_program_moves():
    found = hlo.summary(TPU, 8)
    padded = 104 * 128 * 2  # 100 x 100 in tiles of 8 x 128
    layer, gathered = 256 * 128 * 4, 256 * 128 * 2
    # The square stays on the chip; the loop reads one layer of four in each of its four turns, by a
    # fusion within a fusion; room that is made is not written yet; the two halves of the gather
    # both name its operand.
    scalars = 4 * 4 + 2 * 4
    assert found.hbm_bytes == padded + 4 * layer + 2 * gathered + scalars
    assert found.cycles == 4 * 1000 + 30 + 500  # the last, a kernel's own
    assert found.unknown_loops == 0
    rows = {c.kind: c for c in found.collectives}
    assert rows["all-gather"] == hlo.Collective("all-gather", 131072, 65536, 2, 1, True)
    assert rows["reduce-scatter"] == hlo.Collective("reduce-scatter", 131072, 114688, 8, 1, False)
    assert rows["all-reduce"] == hlo.Collective("all-reduce", 16384, 24576, 4, 1, False)
    # A loop stands between the start and the end of what goes to the other slice.
    assert rows["between slices"] == hlo.Collective("between slices", 16384, 16384, 8, 1, True)
    assert len(found.collectives) == 4


def test_a_loop_that_the_data_ends_counts_once_and_is_said():
    endless = TPU.replace("constant(4)", "parameter(1)")
    found = hlo.summary(endless, 8)
    assert (found.cycles, found.unknown_loops) == (1530, 1)


def test_a_scan_over_sharded_layers():
    """A program that this JAX compiled: the gather of a layer runs once for each of six."""
    devices = jax.devices()[:4]
    mesh = jax.sharding.Mesh(np.asarray(devices), ("x",))

    def loss(layers: jax.Array, x: jax.Array) -> jax.Array:
        whole = NamedSharding(mesh, P())

        def step(x: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
            return jnp.sin(x @ jax.lax.with_sharding_constraint(layer, whole)), None

        return jnp.sum(jax.lax.scan(step, x, layers)[0])

    split = NamedSharding(mesh, P(None, "x"))
    rows = NamedSharding(mesh, P("x"))
    compiled = (
        jax.jit(loss, in_shardings=(split, rows))
        .lower(jnp.zeros((6, 64, 64)), jnp.zeros((8, 64)))
        .compile()
    )
    found = hlo.summary(compiled.as_text() or "", 4)
    gathers = [c for c in found.collectives if c.kind == "all-gather"]
    assert sum(c.times * c.bytes for c in gathers) == 6 * 64 * 64 * 4
    assert all(c.devices == 4 for c in found.collectives)
    assert found.hbm_bytes > 6 * 64 * 64 * 4
    with pytest.raises(ValueError, match="not HLO"):
        hlo.summary("module @jit_loss {}", 4)
