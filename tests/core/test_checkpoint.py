"""The checkpoint store: which states are kept, and restoring onto another mesh."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.core.checkpoint import CheckpointError, Checkpoints, CheckpointStore, load_state, main
from vision.core.mesh import Mesh
from vision.core.state import digest


def tree(scale: float = 1.0) -> dict:
    return {
        "params": {"model": {"kernel": scale * jnp.arange(64.0).reshape(16, 4)}},
        "opt_state": (jnp.ones(3, jnp.bfloat16), {"count": jnp.asarray(7, jnp.int32)}),
        "step": jnp.asarray(3, jnp.int32),
    }


def shapes(state: dict) -> dict:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def test_what_is_kept(tmp_path: Path):
    store = CheckpointStore(tmp_path, Checkpoints(keep=2, keep_every=4))
    for step in range(1, 8):
        assert store.save(step, tree(step), {"step": step}, wait=True)
    assert store.steps() == [4, 6, 7]
    store.close()


def test_round_trip_keeps_structure_dtypes_and_meta(tmp_path: Path):
    store = CheckpointStore(tmp_path, Checkpoints())
    assert store.restore(shapes(tree())) is None
    store.save(3, tree(), {"step": 3, "note": "x"}, wait=True)
    restored = store.restore(shapes(tree()))
    assert restored is not None
    assert restored[1] == {"step": 3, "note": "x"}
    assert digest(restored[0]) == digest(tree())
    assert restored[0]["opt_state"][0].dtype == jnp.bfloat16
    store.close()


def test_a_sharded_state_is_restored_onto_another_mesh(tmp_path: Path):
    eight = Mesh(data=1, fsdp=8).build()
    state = tree()
    kernel = state["params"]["model"]["kernel"]
    state["params"]["model"]["kernel"] = jax.device_put(kernel, NamedSharding(eight, P("fsdp")))
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(1, state, {"step": 1}, wait=True)
    four = Mesh(data=2, fsdp=4).build()
    target = shapes(tree())
    target["params"]["model"]["kernel"] = jax.ShapeDtypeStruct(
        (16, 4), jnp.float32, sharding=NamedSharding(four, P(None, "fsdp"))
    )
    restored = store.restore(target)
    assert restored is not None
    found = restored[0]["params"]["model"]["kernel"]
    assert found.sharding.spec == P(None, "fsdp")
    np.testing.assert_array_equal(found, kernel)
    step, flat = load_state(tmp_path)
    assert step == 1
    np.testing.assert_array_equal(flat["params.model.kernel"], kernel)
    store.close()


def test_another_model_is_refused_by_name_and_nothing_is_moved(tmp_path: Path):
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(1, tree(), {"step": 1}, wait=True)
    wrong = shapes(tree())
    wrong["params"]["model"]["kernel"] = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    with pytest.raises(CheckpointError, match=r"params.model.kernel has shape \(16, 4\), wanted"):
        store.restore(wrong)
    wrong["params"]["model"]["bias"] = wrong["params"]["model"].pop("kernel")
    with pytest.raises(CheckpointError, match=r"kernel is not wanted \(and 1 more\)"):
        store.restore(wrong)
    assert store.steps() == [1]
    assert not (tmp_path / "quarantine").exists()
    store.close()


def test_saving_a_step_twice_keeps_the_first(tmp_path: Path):
    store = CheckpointStore(tmp_path, Checkpoints())
    assert store.save(1, tree(1), {"step": 1}, wait=False)
    assert store.save(1, tree(2), {"step": 1}, wait=True)
    np.testing.assert_array_equal(
        load_state(tmp_path)[1]["params.model.kernel"], tree(1)["params"]["model"]["kernel"]
    )
    store.close()


def test_list_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(1, tree(), {"step": 1}, wait=True)
    store.close()
    (tmp_path / "checkpoints" / "5").mkdir()
    assert main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1  complete",
        "5  _CHECKPOINT_METADATA, state, meta missing",
    ]
    assert main(["list", str(tmp_path / "nowhere")]) == 1
    assert main(["frobnicate"]) == 2
