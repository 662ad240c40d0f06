"""The checkpoint store: which states are kept, and restoring onto another mesh."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.checkpoint.states import saved, shapes, tree
from vision.checkpoint import reading
from vision.checkpoint.commands import main
from vision.checkpoint.manifest import CheckpointManifest
from vision.checkpoint.reading import CheckpointError, flatten, load_matching, load_state
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.parallel.mesh import Mesh
from vision.train.state import digest


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


def test_another_dtype_is_refused_not_cast(tmp_path: Path):
    store = saved(tmp_path, {1: tree()})
    wrong = shapes(tree())
    wrong["params"]["model"]["kernel"] = jax.ShapeDtypeStruct((16, 4), jnp.bfloat16)
    with pytest.raises(CheckpointError, match="kernel has dtype float32, wanted bfloat16"):
        store.restore(wrong)
    store.close()


def test_a_step_may_overwrite_the_state_while_it_is_being_saved(tmp_path: Path):
    update = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    store = CheckpointStore(tmp_path, Checkpoints(keep=5))
    state, digests = tree(), {}
    assert store.restore(shapes(state)) is None
    for step in range(4):
        digests[step] = digest(state)
        assert store.save(step, state, {"step": step})
        state = update(state)
    store.close()
    assert {step: digest(load_state(tmp_path, step)[1]) for step in digests} == {
        step: digest(flatten(jax.tree.map(lambda x, k=step: x + k, tree()))) for step in digests
    }


def test_a_restore_waits_for_a_save_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = saved(tmp_path, {1: tree(1)})
    encode = CheckpointManifest.encode

    def slow(self: CheckpointManifest) -> bytes:
        time.sleep(1)
        return encode(self)

    monkeypatch.setattr(CheckpointManifest, "encode", slow)
    assert store.save(2, tree(2), {"step": 2})
    restored = store.restore(shapes(tree()))
    store.close()
    assert restored is not None
    assert restored[1]["step"] == 2
    assert digest(restored[0]) == digest(tree(2))


def test_a_reader_beside_a_run_that_deletes_its_checkpoint_reads_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = saved(tmp_path, {1: tree(1)})
    first_read = reading.read_verified

    def raced(path: Path, *arguments: Any) -> dict[str, np.ndarray]:
        monkeypatch.setattr(reading, "read_verified", first_read)
        assert store.save(2, tree(2), {"step": 2}, wait=True)
        shutil.rmtree(path)
        return first_read(path, *arguments)

    monkeypatch.setattr(reading, "read_verified", raced)
    assert load_state(tmp_path)[0] == 2
    store.close()


def make_differ(workdir: Path, step: int, **leaf: jax.Array) -> None:
    """Changes arrays under the manifest, as flips of bits do that compression does not notice."""
    other = workdir / "other"
    state = tree(step)
    state["params"]["model"] |= leaf
    saved(other, {step: state}).close()
    goal = workdir / "checkpoints" / str(step) / "state"
    shutil.rmtree(goal)
    shutil.move(other / "checkpoints" / str(step) / "state", goal)
    shutil.rmtree(other)


def test_a_changed_array_is_named_set_aside_and_an_older_state_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = saved(tmp_path, {1: tree(1), 2: tree(2)})
    kernel = tree(2)["params"]["model"]["kernel"]
    make_differ(tmp_path, 2, kernel=kernel.at[3, 1].set(jnp.nextafter(kernel[3, 1], 0)))
    with pytest.raises(CheckpointError, match=r"2 is not usable: params.model.kernel not what was"):
        load_state(tmp_path, 2)
    assert load_state(tmp_path)[0] == 1
    assert not (tmp_path / "quarantine").exists()
    caplog.clear()
    restored = store.restore(shapes(tree()))
    assert restored is not None
    assert restored[1]["step"] == 1
    assert digest(restored[0]) == digest(tree(1))
    assert "checkpoints/2 is not usable: params.model.kernel not what was saved" in caplog.text
    assert (tmp_path / "quarantine" / "2-0").is_dir()
    assert store.steps() == [1]
    assert store.save(2, tree(2), {"step": 2}, wait=True)
    assert load_state(tmp_path)[0] == 2
    store.close()


@pytest.mark.parametrize("damage", ["meta", "manifest gone", "not json", "hex"])
def test_a_changed_manifest_is_not_believed(damage: str, tmp_path: Path):
    store = saved(tmp_path, {1: tree(1), 2: tree(2)})
    path = tmp_path / "checkpoints" / "2" / "manifest" / "manifest.json"
    text = path.read_bytes()
    if damage == "manifest gone":
        path.unlink()
    else:
        changes = {
            "meta": (b'"step": 2', b'"step": 3'),
            "not json": (b"{", b"["),
            "hex": (b"", b"0"),
        }
        path.write_bytes(text.replace(*changes[damage], 1))
    assert load_state(tmp_path)[0] == 1
    restored = store.restore(shapes(tree()))
    assert restored is not None
    assert restored[1]["step"] == 1
    store.close()


def test_best_by_a_metric_are_kept_beside_the_newest(tmp_path: Path):
    options = Checkpoints(keep=1, best="test/top1", keep_best=2)
    top1 = {1: 0.5, 2: 0.9, 3: None, 4: 0.7, 5: float("nan"), 6: 0.1}

    def save(store: CheckpointStore, step: int) -> None:
        metrics = {} if top1[step] is None else {"metrics": {"test/top1": top1[step]}}
        assert store.save(step, tree(step), {"step": step, **metrics}, wait=True)

    store = CheckpointStore(tmp_path, options)
    for step in (1, 2, 3, 4):
        save(store, step)
    store.close()
    store = CheckpointStore(tmp_path, options)  # what is best is read from disk
    for step in (5, 6):
        save(store, step)
    assert store.steps() == [2, 4, 6]
    store.close()
    assert not (tmp_path / "checkpoints" / "trash").exists()
    with pytest.raises(ValueError, match="best_mode is 'most'"):
        Checkpoints(best_mode="most")  # pyright: ignore[reportArgumentType]


def test_a_deletion_broken_off_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path):
    saved(tmp_path, {1: tree(1)}).close()
    trash = tmp_path / "checkpoints" / "trash"
    trash.mkdir()
    shutil.copytree(tmp_path / "checkpoints" / "1", trash / "0")
    (trash / "0" / "_CHECKPOINT_METADATA").unlink()
    store = CheckpointStore(tmp_path, Checkpoints())
    assert store.steps() == [1]
    assert not trash.exists()
    assert not (tmp_path / "quarantine").exists()
    store.close()


def test_matching_arrays_are_taken_from_another_run(tmp_path: Path):
    old = tree(9)
    old["params"]["model"]["head"] = jnp.ones((4, 10))
    saved(tmp_path, {9: old}).close()
    fresh = tree(0)
    fresh["params"]["model"]["head"] = jnp.zeros((4, 3))
    fresh["params"]["model"]["kernel"] = fresh["params"]["model"]["kernel"].astype(jnp.bfloat16)
    before = digest(fresh)
    for pattern, problem in (
        ("^params", r"model.head has shape \(4, 10\) in .* and \(4, 3\) here; narrow"),
        ("parms", "no array there or here; names look like"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            load_matching(tmp_path, pattern, fresh)
    # What does not match is not read: here it would be noticed.
    make_differ(tmp_path, 9, head=jnp.zeros((4, 10)))
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        load_state(tmp_path)
    state, report = load_matching(tmp_path, "kernel", fresh)
    kernel = state["params"]["model"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel, old["params"]["model"]["kernel"].astype(jnp.bfloat16))
    assert (report.step, report.taken) == (9, ("params.model.kernel",))
    assert "params.model.head" in report.kept
    assert "params.model.head" in report.unused
    state["params"]["model"]["kernel"] = fresh["params"]["model"]["kernel"]
    assert digest(state) == before
    with pytest.raises(CheckpointError, match=r"kernel is in .* but not in this model"):
        load_matching(tmp_path, "kernel", {"step": fresh["step"]})
    with pytest.raises(CheckpointError, match=r"kernel2 is not in .*/9; narrow"):
        load_matching(
            tmp_path, "kernel", {"params": {"model": {"kernel": kernel}}, "kernel2": kernel}
        )


def test_a_checkpoint_with_old_names_of_arrays_is_read_by_todays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    teacher = {"kernel": jnp.arange(6.0).reshape(2, 3)}
    old = tree(2) | {"slots": {"teacher": teacher}}
    new = tree(2) | {"extra_state": {"teacher": teacher}}
    store = saved(tmp_path, {3: old})
    restored = store.restore(shapes(new))
    store.close()
    assert restored is not None
    assert digest(restored[0]) == digest(new)
    assert digest(load_state(tmp_path)[1]) == digest(flatten(new))
    _, report = load_matching(tmp_path, r"^extra_state\.", {"extra_state": new["extra_state"]})
    assert report.taken == ("extra_state.teacher.kernel",)
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "3  ok\n"


def test_verify_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved(tmp_path, {1: tree(1), 2: tree(2)}).close()
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1  ok\n2  ok\n"
    make_differ(tmp_path, 2, kernel=jnp.zeros((16, 4)))
    for file in (tmp_path / "checkpoints" / "1" / "state").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:-20])
    assert main(["verify", str(tmp_path)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("1  ")
    assert "params.model.kernel unreadable" in first
    assert second == "2  params.model.kernel not what was saved"
    assert main(["verify", str(tmp_path), "--step=3"]) == 2
    assert main(["verify"]) == 2
    assert not (tmp_path / "quarantine").exists()


def test_export_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = tree(2) | {"model_state": {"model": {"mean": jnp.ones(3)}}}
    state["extra_state"] = {
        "ema": {
            name: jax.tree.map(lambda x: x + 1, state[name]) for name in ("params", "model_state")
        }
    }
    state["params"]["model"]["bias"] = jnp.ones(2, jnp.bfloat16)
    state["extra_state"]["ema"]["params"]["model"]["bias"] = jnp.zeros(2, jnp.bfloat16)
    saved(tmp_path, {4: state}).close()
    out = tmp_path / "model.safetensors"
    assert main(["export", str(tmp_path), f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "3 arrays, 69 elements, 272 bytes; extra_state 'ema' of step 4" in printed
    written = load_file(out)
    expected = {
        f"{part}.{name}": x
        for part in ("params", "model_state")
        for name, x in flatten(state["extra_state"]["ema"][part]).items()
    }
    assert digest(written) == digest(expected)
    with safe_open(out, "numpy") as file:
        metadata = file.metadata()
    assert (metadata["step"], metadata["digest"]) == ("4", digest(expected))
    last = ("--extra_state=none", "--params=^params")
    assert main(["export", str(tmp_path), f"--out={out}", *last]) == 0
    assert digest(load_file(out)) == digest(
        {f"params.{name}": x for name, x in flatten(state["params"]).items()}
    )
    for wrong in ("--extra_state=teacher", "--params=nothing", "--step=5", "--out=/nowhere/x"):
        assert main(["export", str(tmp_path), f"--out={out}", wrong]) == 2
    assert main(["export", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_list_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(1, tree(), {"step": 1}, wait=True)
    store.close()
    (tmp_path / "checkpoints" / "5").mkdir()
    assert main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1  complete",
        "5  _CHECKPOINT_METADATA, state, manifest missing",
    ]
    assert main(["list", str(tmp_path / "nowhere")]) == 2
    assert main(["frobnicate"]) == 2
