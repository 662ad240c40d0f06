"""The step: the same run on any mesh, masked rows without effect, donated buffers, averages."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.norm_tower import NormTower
from tests.patch_tower import PatchTower
from vision.data.batch_ops import Mixup
from vision.models.vit import ViT
from vision.objectives.classify import Classify, cross_entropy, to_targets
from vision.parallel.mesh import Mesh, MeshError, ShardingRule, state_shardings, to_device
from vision.run.compile import Compiled, compile_step
from vision.train.optim import Ema, Optimizer, adamw, sgd
from vision.train.schedule import Cosine, TrainLength
from vision.train.state import digest
from vision.train.step import Step

BATCH = 16
FSDP = (ShardingRule(".*", "fsdp", min_size=1),)


def vit() -> nn.Module:
    return ViT(width=16, depth=2, heads=2, patch=4, num_classes=5, pool="mean", drop_path=0.1)


def make(model: nn.Module, **changes) -> Step:
    optimizer = Optimizer(adamw(), 1e-3, Cosine(warmup="5 steps"), weight_decay=0.1, clip_norm=1.0)
    step = Step(
        objective=Classify(model),
        optimizer=optimizer,
        train_length=TrainLength(num_examples=160, batch_size=BATCH, total_steps=20),
        ema=Ema(0.9),
    )
    return dataclasses.replace(step, **changes)


def batches(count: int = 20) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.normal(size=(BATCH, 8, 8, 3)).astype(np.float32),
            "label": rng.integers(0, 5, BATCH).astype(np.int32),
            "_mask": np.ones(BATCH, bool),
            "_index": np.arange(BATCH, dtype=np.int32),
        }
        for _ in range(count)
    ]


def shapes() -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in batches(1)[0].items()}


def losses(step: Step, mesh: jax.sharding.Mesh, rules=(), count: int = 20):
    compiled = compile_step(step, shapes(), mesh, rules)
    state, values = compiled.init(), []
    for batch in batches(count):
        arrays = to_device(batch, mesh)
        with jax.transfer_guard("disallow"):
            state, metrics = compiled.update(state, arrays)
        values.append(float(metrics["loss"]))
    return np.asarray(values)


@pytest.fixture(scope="module")
def compiled_vit() -> Compiled:
    return compile_step(make(vit()), shapes(), Mesh().build(jax.devices()[:1]))


def test_two_runs_are_bit_equal_and_the_seed_matters(compiled_vit: Compiled):
    def run() -> str:
        state = compiled_vit.init()
        for batch in batches(3):
            state, _ = compiled_vit.update(state, batch)
        return digest(state)

    assert run() == run()
    tower, batch = PatchTower(num_classes=5), shapes()
    init = jax.jit(lambda seed: make(tower, seed=seed).init(jax.tree.map(jnp.zeros_like, batch)))
    first, again, other = (digest(init(seed).params) for seed in (0, 0, 1))
    assert first == again != other


def test_the_old_state_is_donated(compiled_vit: Compiled):
    state = compiled_vit.init()
    compiled_vit.update(state, batches(1)[0])
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_masked_and_unlabelled_rows_do_not_count(compiled_vit: Compiled):
    batch = batches(1)[0]
    hidden, unlabelled = dict(batch), dict(batch)
    hidden["_mask"] = np.arange(BATCH) < 12
    unlabelled["label"] = np.where(np.arange(BATCH) < 12, batch["label"], -1).astype(np.int32)
    garbage = dict(hidden)
    garbage["image"] = np.where(hidden["_mask"][:, None, None, None], batch["image"], 1e3)
    garbage["image"] = garbage["image"].astype(np.float32)
    ends = []
    for variant in (hidden, unlabelled, garbage):
        state, metrics = compiled_vit.update(compiled_vit.init(), variant)
        ends.append((digest(state.params), float(metrics["loss"])))
    assert ends[0] == ends[1] == ends[2]
    _, metrics = compiled_vit.update(compiled_vit.init(), batch)
    assert float(metrics["loss"]) != ends[0][1]


def test_ema_slot_is_the_average_of_parameters(compiled_vit: Compiled):
    state = compiled_vit.init()
    average = jax.device_get(state.params["model"])
    for t, batch in enumerate(batches(3)):
        state, _ = compiled_vit.update(state, batch)
        decay = min(0.9, (1 + t) / (10 + t))
        new = jax.device_get(state.params["model"])
        average = jax.tree.map(lambda a, x, d=decay: a + (1 - d) * (x - a), average, new)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        average,
        jax.device_get(state.averaged.params["model"]),
    )


def test_batch_norm_statistics_are_averaged_and_used():
    mesh = Mesh().build()
    step = make(NormTower(5), optimizer=Optimizer(sgd(), 0.01))
    compiled = compile_step(step, shapes(), mesh)
    start, state = compiled.init(), compiled.init()
    for batch in batches(3):
        state, _ = compiled.update(state, to_device(batch, mesh))
    moved = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
        state.model_state["model"],
        start.model_state["model"],
    )
    assert all(jax.tree.leaves(moved))
    assert state.averaged.model_state is not state.model_state


def test_batch_ops_run_inside_the_step():
    mesh, tower = Mesh().build(jax.devices()[:1]), PatchTower(num_classes=5)
    mix = Mixup(num_classes=5, alpha=1.0)
    plain, mixed = (losses(make(tower, batch_ops=ops), mesh, count=2) for ops in ((), (mix,)))
    assert plain[1] != mixed[1]


def poisoned(batch: dict[str, np.ndarray], value: float) -> dict[str, np.ndarray]:
    image = batch["image"].copy()
    image[5, 2, 3, 1] = value
    return {**batch, "image": image}


@pytest.mark.parametrize("devices", [1, 8])
def test_a_batch_that_is_not_finite_is_passed_over_bit_for_bit(devices: int):
    step = make(NormTower(5), skip_nonfinite=True, accumulate=2 // (1 + (devices == 8)))
    mesh = Mesh(data=1, fsdp=devices).build(jax.devices()[:devices])
    compiled = compile_step(step, shapes(), mesh, FSDP if devices == 8 else ())
    state, _ = compiled.update(compiled.init(), to_device(batches(1)[0], mesh))
    before, counted = digest(dataclasses.replace(state, step=0)), int(state.opt_state["count"])
    for t, value in enumerate((np.nan, np.inf)):
        state, metrics = compiled.update(state, to_device(poisoned(batches(1)[0], value), mesh))
        assert digest(dataclasses.replace(state, step=0)) == before
        assert int(state.step) == t + 2
        assert not np.isfinite(metrics["grad_norm"])
        assert float(metrics["skipped"]) == 1
    state, metrics = compiled.update(state, to_device(batches(2)[1], mesh))
    assert digest(dataclasses.replace(state, step=0)) != before
    assert float(metrics["skipped"]) == 0
    # The rate that is reported is the one that was applied: skipped steps do not move it.
    assert isinstance(step.optimizer, Optimizer)
    rate = step.optimizer.rate(jnp.asarray(counted), step.train_length)
    np.testing.assert_allclose(metrics["learning_rate"], rate, rtol=1e-6)


def test_without_the_option_a_poisoned_batch_shows_in_the_metrics(compiled_vit: Compiled):
    state, metrics = compiled_vit.update(compiled_vit.init(), poisoned(batches(1)[0], np.nan))
    assert np.isnan(metrics["loss"])
    assert np.isnan(metrics["grad_norm"])
    assert "skipped" not in metrics
    assert any(np.isnan(x).any() for x in jax.tree.leaves(jax.device_get(state.params)))


def test_accumulation_gives_the_same_run():
    plain = PatchTower(num_classes=5)
    mix = (Mixup(num_classes=5, alpha=1.0),)
    whole = losses(make(plain, batch_ops=mix), Mesh().build(jax.devices()[:4]), count=5)
    cut = losses(
        make(plain, batch_ops=mix, accumulate=4),
        Mesh(fsdp=4, data=1).build(jax.devices()[:4]),
        FSDP,
        count=5,
    )
    np.testing.assert_allclose(cut, whole, rtol=2e-5)
    with pytest.raises(ValueError, match="accumulate is 0, expected a whole number >= 1"):
        make(plain, accumulate=0)


def test_label_smoothing_and_sigmoid_have_their_textbook_values():
    logits = jnp.asarray([[2.0, 0.0, -1.0]])
    targets, valid = to_targets(jnp.asarray([0]), 3)
    assert bool(valid[0])
    log_p = jax.nn.log_softmax(logits)[0]
    smooth = -(0.9 * log_p[0] + 0.1 * log_p.mean())
    np.testing.assert_allclose(cross_entropy(logits, targets, "softmax", 0.1)[0], smooth, rtol=1e-6)
    sigmoid = -(jax.nn.log_sigmoid(2.0) + jax.nn.log_sigmoid(-0.0) + jax.nn.log_sigmoid(1.0))
    np.testing.assert_allclose(
        cross_entropy(logits, targets, "sigmoid", 0.0)[0], sigmoid, rtol=1e-6
    )
    with pytest.raises(ValueError, match="labels have 3 classes and the model has 4"):
        to_targets(targets, 4)


def test_mesh_errors_say_what_to_do():
    with pytest.raises(MeshError, match="does not fill the 8"):
        Mesh(data=3).build()
    with pytest.raises(MeshError, match="at most one may be -1"):
        Mesh(data=-1, fsdp=-1).build()
    with pytest.raises(MeshError, match="a batch of 6 cannot be split"):
        to_device({"x": np.zeros((6, 2))}, Mesh().build())
    tree = {"a": jax.ShapeDtypeStruct((8, 8), jnp.float32)}
    with pytest.raises(MeshError, match="'zzz' matches no array"):
        state_shardings(tree, Mesh(data=1, fsdp=8).build(), (ShardingRule("zzz", "fsdp"),))
