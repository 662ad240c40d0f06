"""Meshes and layouts: the same losses on every mesh, a known number of collectives, errors."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vision.parallel.mesh import (
    Mesh,
    MeshError,
    ShardingRule,
    arrange,
    batch_share,
    constrain_batch,
    shares,
    state_shardings,
    to_device,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "collectives.json"
COMPLAINT = "Involuntary full rematerialization"
MESHES = ("data", "fsdp", "tensor", "data x tensor", "fsdp x tensor", "replica x fsdp")
OTHERS = ("unrolled vit", "convnext", "resnet")
# Each compiles in a process of its own.
MODELS = ("vit", *(pytest.param(model, marks=pytest.mark.slow) for model in OTHERS))


@functools.cache
def process(model: str) -> tuple[dict[str, Any], str]:
    """Rows of ``mesh_process.py`` for a model, by mesh, and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("mesh_process.py")), model],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["mesh"]: row for row in rows}, done.stderr


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        *(("vit", mesh) for mesh in MESHES),
        *(pytest.param(model, "fsdp x tensor", marks=pytest.mark.slow) for model in OTHERS),
    ],
)
def test_losses_are_those_of_one_device(model: str, mesh: str):
    rows, _ = process(model)
    one, many = rows["one device"], rows[mesh]
    np.testing.assert_allclose(many["losses"][0], one["losses"][0], rtol=1e-6)
    # Steps amplify the rounding of sums in another order, a network of convolutions most.
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=5e-5)
    assert one["losses"][-1] < one["losses"][0] - 0.05
    assert (many["split"] > 0) == (mesh != "data")


@pytest.mark.parametrize("model", MODELS)
def test_the_compiler_finds_no_layout_hard(model: str):
    towers, control = process(model)[1].split("\ncontrol\n")
    assert COMPLAINT in control
    assert COMPLAINT not in towers


@pytest.mark.parametrize("model", MODELS)
def test_collectives_are_golden(model: str):
    """UPDATE_GOLDEN=1 pytest tests/parallel/test_mesh.py rewrites them; read the diff."""
    found = {mesh: row["collectives"] for mesh, row in process(model)[0].items()}
    golden = json.loads(GOLDEN.read_text())
    if os.environ.get("UPDATE_GOLDEN"):
        golden = {
            "jax": jax.__version__,
            "collectives": {**golden["collectives"], model: found},
        }
        GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")
    if golden["jax"] != jax.__version__:
        pytest.skip(f"the golden numbers are those of jax {golden['jax']}")
    assert found == golden["collectives"][model]


def specs(tree: Any, mesh: Mesh, *rules: ShardingRule) -> Any:
    return jax.tree.map(lambda s: s.spec, state_shardings(tree, mesh.build(), rules))


def arrays(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def test_layouts():
    mesh = Mesh(data=1, fsdp=4, tensor=2)
    tree = arrays(kernel=(6, 8, 16), bias=(6,), scale=(8, 4))
    found = specs(
        tree,
        mesh,
        ShardingRule("kernel", ("fsdp", "tensor")),
        ShardingRule("bias", ("tensor",)),
        ShardingRule(".*", "fsdp", min_size=1),
    )
    # Counted from the last dimension: the stacked layers in front stay whole.
    assert found == {"kernel": P(None, "fsdp", "tensor"), "bias": P("tensor"), "scale": P("fsdp")}
    assert specs(arrays(a=(8, 8)), mesh, ShardingRule("a", "fsdp"))["a"] == P()  # small
    assert specs(arrays(a=(7, 9)), mesh, ShardingRule("a", "fsdp", min_size=1))["a"] == P()
    assert specs(arrays(a=(8,)), mesh, ShardingRule("a", "replicate"))["a"] == P()


def test_statistics_follow_their_parameter_where_they_have_its_shape():
    tree = {
        "params": {"model": arrays(kernel=(8, 4))},
        "opt_state": {"mu": {"model": arrays(kernel=(8, 4))}},
        "factored": {"model": arrays(kernel=(3,))},
        "extra_state": {"ema": {"params": {"model": arrays(kernel=(8, 4))}}},
    }
    found = specs(tree, Mesh(data=1, fsdp=4, tensor=2), ShardingRule("kernel", ("fsdp", "tensor")))
    split = P("fsdp", "tensor")
    assert found["params"]["model"]["kernel"] == split
    assert found["opt_state"]["mu"]["model"]["kernel"] == split
    assert found["extra_state"]["ema"]["params"]["model"]["kernel"] == split
    assert found["factored"]["model"]["kernel"] == P()


def test_rules_that_do_not_fit_are_named():
    mesh = Mesh(data=1, fsdp=2, tensor=4)
    tree = {"model": arrays(kernel=(6, 10), bias=(8,))}
    with pytest.raises(MeshError, match=r"'kernal' matches no array.*model/kernel"):
        specs(tree, mesh, ShardingRule("kernal", "fsdp"))
    with pytest.raises(
        MeshError,
        match=r"'kernel' .*model/kernel of shape \(6, 10\): the 4 devices of axis tensor do not "
        r"divide its dimension 1 of 10; change config.mesh.tensor",
    ):
        specs(tree, mesh, ShardingRule("kernel", (None, "tensor")))
    with pytest.raises(MeshError, match=r"model/bias of shape \(8,\) has only 1 dimension"):
        specs(tree, mesh, ShardingRule(".*", (None, "tensor")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("a", "shard"), "layout='shard', but it is 'replicate', 'fsdp', or"),
        (("a", ("model",)), "fsdp and tensor at most once"),
        (("a", ("fsdp", "fsdp")), "fsdp and tensor at most once"),
        (("a", ()), "at most once"),
        (("(a", "fsdp"), r"pattern='\(a' is no regular expression"),
    ],
)
def test_bad_rules(fields: tuple[Any, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ShardingRule(*fields)


def test_activations_are_split_over_tensor_where_it_divides():
    mesh = Mesh(data=4, tensor=2).build()
    with jax.set_mesh(mesh):
        even, odd = jax.jit(lambda x, y: (constrain_batch(x, -1), constrain_batch(y, -1)))(
            jnp.zeros((4, 3, 6)), jnp.zeros((4, 3, 5))
        )
    assert even.sharding.shard_shape(even.shape) == (1, 3, 3)
    assert odd.sharding.shard_shape(odd.shape) == (1, 3, 5)
    x = jnp.zeros((3, 2))
    assert constrain_batch(x) is x


@dataclasses.dataclass(frozen=True)
class Device:
    """What arranging devices asks of one; slices are not to be had on a CPU."""

    id: int
    process_index: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "made of paper"


def test_a_replica_stays_in_one_slice():
    # Two slices of two processes of two devices, in a mixed order.
    devices = [Device(i, i // 2, i // 4) for i in (7, 0, 5, 2, 1, 4, 3, 6)]
    sizes = {"replica": 2, "data": 1, "fsdp": 2, "tensor": 2}
    slices = np.vectorize(lambda d: d.slice_index)(arrange(sizes, devices))
    assert slices.shape == (2, 1, 2, 2)
    assert (slices[0] == 0).all()
    assert (slices[1] == 1).all()
    ids = np.vectorize(lambda d: d.id)(arrange({**sizes, "replica": 1, "data": 2}, devices))
    assert ids.ravel().tolist() == list(range(8))


def test_shares_of_processes():
    """Processes with other rows read other parts; processes with the same rows the same part."""
    assert shares(np.array([[0, 0], [0, 0], [1, 1], [1, 1]])) == {0: (0, 2), 1: (1, 2)}
    assert shares(np.array([[0, 1], [2, 3]])) == {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}
    assert shares(np.array([[1], [0]])) == {1: (0, 2), 0: (1, 2)}
    with pytest.raises(MeshError, match="processes hold"):
        shares(np.array([[0, 0], [0, 1], [1, 1]]))
    assert batch_share(Mesh(tensor=2).build()) == (0, 1)


def test_batches_are_split_over_replica_data_and_fsdp():
    mesh = Mesh(replica=2, data=1, fsdp=2, tensor=2).build()
    array = to_device({"x": np.arange(8)}, mesh)["x"]
    assert array.sharding.shard_shape(array.shape) == (2,)
    np.testing.assert_array_equal(array, np.arange(8))
    with pytest.raises(MeshError, match="a batch of 6 cannot be split over replica x data x fsdp"):
        to_device({"x": np.zeros(6)}, mesh)
