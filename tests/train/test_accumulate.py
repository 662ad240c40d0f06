"""Accumulation: micro-batches give the large batch's loss, gradient, averages and rows."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.block_tower import BlockTower
from tests.norm_tower import NormTower
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, batch_sharding, to_device
from vision.train.accumulate import AccumulationError, loss_and_gradient
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Objective, Variables
from vision.train.tower import forward, initialise

ROWS = 32
KEY = jax.random.key_data(jax.random.key(3))


def vit(**changes: Any) -> nn.Module:
    sizes: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "pool": "mean"}
    return ViT(**{**sizes, "num_classes": 5, "head_zero_init": False, **changes})


class Perceptron(nn.Module):
    """A tower that compiles in no time."""

    num_classes: int | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        x = nn.tanh(nn.Dense(24)(x.reshape(len(x), -1)))
        x = nn.Dense(16)(nn.Dropout(self.dropout, deterministic=not train)(x))
        return x, {"logits": nn.Dense(self.num_classes)(x)} if self.num_classes else {}


def a_batch(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Every fourth row from the third on is masked: of four micro-batches, one is empty."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, rows)
    label[::7] = -1
    return {
        "image": rng.normal(size=(rows, 8, 8, 3)).astype(np.float32),
        "text": rng.integers(0, 11, (rows, 6)).astype(np.int32),
        "label": label.astype(np.int32),
        "_mask": (np.arange(rows) % 4 != 2) & (np.arange(rows) % 9 != 1),
        "_index": np.arange(rows, dtype=np.int32),
    }


def run(objective: Any, accumulate: int = 1, devices: int = 1, batch: Any = None):
    """(loss, aux, gradient) of a batch, the objective freshly initialised."""
    batch = a_batch() if batch is None else batch
    mesh = Mesh().build(jax.devices()[:devices])
    compiled = compute(objective, accumulate, devices, shapes_of(batch))
    with jax.set_mesh(mesh):
        return compiled(start(objective), to_device(batch, mesh))


def shapes_of(batch: Any) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    return tuple((name, x.shape, x.dtype.name) for name, x in batch.items())


@functools.cache
def start(objective: Any) -> Variables:
    one = {name: x[:1] for name, x in a_batch().items()}
    return jax.device_get(jax.jit(objective.init)(jax.random.key(0), one))


@functools.cache
def compute(objective: Any, accumulate: int, devices: int, shapes: Any) -> Any:
    """``loss_and_gradient`` of an objective, compiled for a number of devices."""

    def fn(variables: Variables, batch: Any):
        key = jax.random.wrap_key_data(KEY)
        ctx = Context(jnp.zeros([], jnp.int32), 10, True, key)
        return loss_and_gradient(objective, variables.params, variables, batch, ctx, accumulate)

    mesh = Mesh().build(jax.devices()[:devices])
    rows = batch_sharding(mesh)
    batch = {n: jax.ShapeDtypeStruct(shape, dtype, sharding=rows) for n, shape, dtype in shapes}
    with jax.set_mesh(mesh):
        return jax.jit(fn).lower(start(objective), batch).compile()


def assert_close(tree: Any, expected: Any, atol: float = 2e-6) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol),
        jax.device_get(tree),
        jax.device_get(expected),
    )


@pytest.mark.parametrize(("accumulate", "devices"), [(2, 1), (4, 8)])
def test_classification_equals_the_large_batch(accumulate: int, devices: int):
    objective = Classify(vit(), label_smoothing=0.1)
    loss, aux, grads = run(objective)
    cut_loss, cut_aux, cut_grads = run(objective, accumulate, devices)
    assert_close(cut_loss, loss)
    assert_close(cut_grads, grads)
    assert_close(cut_aux.metrics, aux.metrics)
    batch = a_batch()
    assert float(cut_aux.weight) == np.sum(batch["_mask"] & (batch["label"] >= 0))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-2


def test_soft_labels_and_sigmoid_losses_equal_the_large_batch():
    rng = np.random.default_rng(1)
    batch = {**a_batch(), "label": rng.dirichlet(np.ones(5), ROWS).astype(np.float32)}
    objective = Classify(Perceptron(5), loss_type="sigmoid")
    loss, _, grads = run(objective, batch=batch)
    cut_loss, _, cut_grads = run(objective, 4, batch=batch)
    assert_close((cut_loss, cut_grads), (loss, grads))


def test_a_batch_without_a_valid_row_has_no_gradient():
    batch = {**a_batch(), "_mask": np.zeros(ROWS, bool)}
    loss, aux, grads = run(Classify(vit(), label_smoothing=0.1), 2, batch=batch)
    assert float(loss) == float(aux.weight) == 0
    assert not any(np.any(np.asarray(g)) for g in jax.tree.leaves(grads))


def test_no_row_leaves_its_device():
    """Splitting must not move rows: gradients are summed over devices, and that is all."""
    text = compute(Classify(vit(), label_smoothing=0.1), 4, 8, shapes_of(a_batch())).as_text()
    kinds = set(re.findall(r"(all-\w[\w-]*|collective-permute|reduce-scatter)(?:-start)?\(", text))
    assert kinds == {"all-reduce"}


@dataclasses.dataclass(frozen=True)
class Remember(Objective):
    """A linear regression that hands features and averages to ``after_update``."""

    model: Any = None
    weighted: bool = False
    misplaced: bool = False

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        return Variables({"model": {"kernel": jax.random.normal(key, (192,))}}, {}, {})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        features = batch["image"].reshape(-1, 192)
        error = (features @ variables.params["model"]["kernel"] - batch["_index"]) ** 2
        weight = batch["_mask"] * (1.0 + batch["_index"] * self.weighted)
        total = jnp.maximum(weight.sum(), 1)
        centre = weight @ features / total
        return weight @ error / total, Aux(
            metrics={"error": weight @ jnp.sqrt(error) / total},
            carry={"features": features, **({"centre": centre} if self.misplaced else {})},
            means={"centre": centre},
            weight=weight.sum() if self.weighted else None,
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_come_back_in_order_and_averages_as_averages(weighted: bool):
    loss, aux, grads = run(Remember(weighted=weighted))
    for devices in (1, 8):
        cut_loss, cut, cut_grads = run(Remember(weighted=weighted), 4, devices)
        assert_close((cut_loss, cut_grads, cut.metrics), (loss, grads, aux.metrics), atol=1e-4)
        assert_close(cut.means, aux.means)
        np.testing.assert_array_equal(cut.carry["features"], aux.carry["features"])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_average_among_the_rows_is_refused(accumulate: int):
    with pytest.raises(ValueError, match=r"Aux.carry has 'centre' of shape \(192,\)"):
        run(Remember(misplaced=True), accumulate)


def test_batch_norm_averages_run_over_the_micro_batches_in_order():
    model = NormTower(5)
    objective = Classify(model)
    batch = a_batch()
    loss, aux, _ = run(objective, 2, batch=batch)
    model_state = start(objective).model_state["model"]
    params = start(objective).params["model"]
    net = jax.jit(functools.partial(forward, model, params, train=True))
    losses, counts, state = [], [], model_state
    for m in range(2):
        micro = {name: x[m::2] for name, x in batch.items()}
        _, out, state = net(state, micro["image"])
        valid = micro["_mask"] & (micro["label"] >= 0)
        log_p = jax.nn.log_softmax(out["logits"])[np.arange(16), micro["label"]]
        losses.append(-float(jnp.mean(log_p[valid])))
        counts.append(valid.sum())
    assert_close(loss, np.average(losses, weights=counts))
    assert_close(aux.model_state["model"], state)
    _, _, whole = net(model_state, batch["image"])
    stats = [jax.tree.leaves(tree)[0] for tree in (state, whole)]
    assert float(jnp.abs(stats[0] - stats[1]).max()) > 1e-3


@dataclasses.dataclass(frozen=True)
class Contrast(BatchCoupled):
    """InfoNCE between images and texts with a learned temperature (Radford et al., 2021)."""

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, _ = initialise(self.model, key, batch["image"])
        text = {"table": jax.random.normal(key, (11, 16))}
        scale = {"log": jnp.asarray(1.5)}
        return Variables({"image": params, "text": text, "scale": scale}, {}, {})

    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[Any, Aux]:
        params = variables.params
        image, _, _ = forward(
            self.model, params["image"], {}, batch["image"], train=True, key=ctx.rng("dropout")
        )
        text = jnp.tanh(params["text"]["table"][batch["text"]]).mean(1)
        size = jnp.abs(text).mean(-1)
        mean_size = size @ batch["_mask"] / jnp.maximum(batch["_mask"].sum(), 1)
        embedded = {"image": _unit(image), "text": _unit(text)}
        return embedded, Aux(metrics={"text_size": mean_size}, carry={"index": batch["_index"]})

    def loss_from_embeddings(
        self, variables: Variables, embeddings: Any, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        valid, scale = batch["_mask"], jnp.exp(variables.params["scale"]["log"])
        logits = embeddings["image"] @ embeddings["text"].T * scale
        logits = jnp.where(valid[:, None] & valid[None], logits, -1e9)
        log_p = jax.nn.log_softmax(logits, 0) + jax.nn.log_softmax(logits, 1)
        count = jnp.maximum(valid.sum(), 1)
        right = jnp.argmax(logits, 1) == jnp.arange(len(valid))
        return -jnp.diag(log_p) @ valid / (2 * count), Aux(metrics={"top1": right @ valid / count})


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("devices", [1, 8])
def test_contrastive_loss_equals_the_large_batch(devices: int):
    objective = Contrast(Perceptron())
    loss, aux, grads = run(objective)
    assert float(jnp.abs(grads["scale"]["log"])) > 1e-3
    for accumulate in (2, 4) if devices == 1 else (1, 2, 4):
        cut_loss, cut, cut_grads = run(objective, accumulate, devices)
        assert_close((cut_loss, cut_grads, cut.metrics), (loss, grads, aux.metrics))
        np.testing.assert_array_equal(cut.carry["index"], np.arange(ROWS))


def test_both_passes_of_a_coupled_loss_draw_the_same_noise():
    objective = Contrast(Perceptron(dropout=0.3))
    batch = {name: jnp.asarray(x) for name, x in a_batch().items()}
    key = jax.random.wrap_key_data(KEY)
    ctx = Context(jnp.zeros([], jnp.int32), 10, True, key)

    def uncut(params: Any) -> jax.Array:
        parts, given = [], Variables(params, {}, {})
        for m in range(2):
            inner = dataclasses.replace(ctx, key=jax.random.fold_in(key, m))
            micro = {name: x[m::2] for name, x in batch.items()}
            parts.append(objective.encode(given, micro, inner)[0])
        rows = jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(ROWS, -1), *parts)
        return objective.loss_from_embeddings(given, rows, batch, ctx)[0]

    expected = jax.jit(jax.value_and_grad(uncut))(start(objective).params)
    loss, _, grads = run(objective, 2)
    assert_close((loss, grads), expected)
    assert float(run(objective)[0]) != float(loss)


SMALL_PATCHES: Any = BlockTower(width=16, depth=1, patch=2, num_classes=5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Classify(SMALL_PATCHES), Contrast(SMALL_PATCHES)])
def test_memory_falls_with_the_number_of_micro_batches(objective: Any):
    shapes = shapes_of(a_batch(64))
    sizes = [compute(objective, k, 1, shapes).memory_analysis().temp_size_in_bytes for k in (1, 8)]
    assert sizes[1] < 0.25 * sizes[0]


@dataclasses.dataclass(frozen=True)
class Uncut(Classify):
    batch_coupled: ClassVar[bool] = True


def test_errors_say_what_to_do():
    with pytest.raises(AccumulationError, match="accumulate=3 does not divide the batch of 32"):
        run(Classify(Perceptron(5)), 3)
    with pytest.raises(AccumulationError, match=r"the 4 rows .* 8 devices .* a multiple of 64"):
        run(Classify(Perceptron(5)), 8, devices=8)
    with pytest.raises(AccumulationError, match=r"Uncut compares the rows .* encode and loss"):
        run(Uncut(Perceptron(5)), 2)
    with pytest.raises(ValueError, match=r"the batch has 'scale' of shape \(1,\)"):
        run(Classify(Perceptron(5)), 2, batch={**a_batch(), "scale": np.ones(1)})
