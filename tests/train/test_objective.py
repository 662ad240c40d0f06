"""The base class of objectives, and what losses are written with."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.train.objective import (
    Aux,
    Batch,
    BatchCoupled,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    join,
    masked_mean,
    output_shapes,
)
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import Tap


class Tower(nn.Module):
    """A linear classifier behind a BatchNorm and dropout."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x if tap is None else tap("embedding", x)
        return x, {"logits": nn.Dense(3)(x)}


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        return nn.Dense(5)(x), {}


class Votes(Objective):
    """Five lines, without a decorator or a field of its own."""

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        log, votes = jax.nn.log_softmax(out["logits"]), batch["votes"]
        losses, right = -jnp.sum(votes * log, -1), log.argmax(-1) == votes.argmax(-1)
        return averaged(losses, batch["_mask"], state, top1=right)


def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
        "votes": jnp.asarray(rng.dirichlet(np.ones(3), 6), jnp.float32),
        "_mask": jnp.array([True, True, True, False, True, True]),
    }


def make(objective: Objective) -> Step:
    return Step(objective, Optimizer(sgd(), 0.1), TrainLength(6, 6, total_steps=4))


def test_a_loss_is_all_that_an_objective_needs():
    step = make(Votes(Tower()))
    state = step.init(batch())
    assert (sorted(state.params), sorted(state.model_state)) == (["model"], ["model"])
    assert state.extra_state == {}
    after, metrics = jax.jit(step.update)(state, batch())
    assert set(metrics) == {"loss", "learning_rate", "grad_norm", "top1"}
    mean = after.model_state["model"]["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.5 * batch()["image"].mean(0), rtol=1e-5, atol=1e-6)
    predicted = step.predict(after.variables, batch())
    assert {name: x.shape for name, x in predicted.items()} == {
        "logits": (6, 3),
        "log_probabilities": (6, 3),
        "embedding": (6, 4),
    }
    with pytest.raises(TypeError, match="abstract"):
        Objective(Tower())  # pyright: ignore[reportAbstractUsage]


def test_masked_rows_do_not_count_and_the_weight_is_their_number():
    objective, ctx = Votes(Tower()), Context.evaluation()
    variables = objective.init(jax.random.key(0), batch())
    loss, aux = objective.loss(variables, batch(), ctx)
    other = {**batch(), "image": batch()["image"].at[3].set(9.0)}
    np.testing.assert_allclose(objective.loss(variables, other, ctx)[0], loss, rtol=1e-6)
    assert aux.weight == 5
    some = {name: x[np.array([0, 1, 2, 4, 5])] for name, x in batch().items()}
    np.testing.assert_allclose(objective.loss(variables, some, ctx)[0], loss, rtol=1e-6)
    none = {**batch(), "_mask": jnp.zeros(6, bool)}
    assert objective.loss(variables, none, ctx)[0] == 0


def test_averages_of_examples_and_scalars():
    losses, valid = jnp.arange(4.0), jnp.array([True, False, True, True])
    loss, aux = averaged(losses, valid, {"net": {}}, twice=2 * losses, share=jnp.float32(0.5))
    assert float(loss) == pytest.approx(5 / 3)
    assert float(aux.metrics["twice"]) == pytest.approx(10 / 3)
    assert aux.metrics["share"] == 0.5
    assert (aux.weight, aux.model_state) == (3, {"net": {}})
    tokens = jnp.arange(6.0).reshape(2, 3)
    assert float(masked_mean(tokens, tokens > 3)) == pytest.approx(4.5)
    assert masked_mean(tokens, tokens > 9) == 0


def test_a_network_is_called_with_its_part_of_the_variables():
    tower, image = Tower(dropout=0.5), batch()["image"]
    fresh = Votes(tower).init(jax.random.key(0), batch())
    teacher = fresh.params["model"]
    student = fresh.merge(params={"model": jax.tree.map(lambda x: x + 1, teacher)})
    still, train = Context.evaluation(), Context(jnp.int32(0), 1, True, jax.random.key(1))
    out, state = apply(tower, fresh, image, still)
    assert state.keys() == {"model"}
    of_teacher, _ = apply(tower, student, image, still, params=teacher)
    np.testing.assert_allclose(of_teacher["logits"], out["logits"], rtol=1e-6)
    look, kept = apply(tower, student, image, train, params=teacher, train=False)
    np.testing.assert_allclose(look["logits"], out["logits"], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, kept["model"], fresh.model_state["model"])
    # Dropout follows from the step's key, or from one that is given.
    first, again, other = (
        apply(tower, fresh, image, train, key=key)[0]["embedding"]
        for key in (None, None, jax.random.key(2))
    )
    np.testing.assert_allclose(first, again)
    assert np.any(first != other)
    edited, _ = apply(tower, fresh, image, still, tap=Tap(lambda _, x: 0 * x))
    assert not np.any(edited["embedding"])
    assert output_shapes(tower, fresh, image)["logits"].shape == (6, 3)


def test_a_network_without_state_leaves_no_entry():
    dense, x = Perceptron(), jnp.ones((2, 4))
    params = dense.init(jax.random.key(0), x)["params"]
    variables = Variables({"head": params}, {"model": {}}, {})
    out, state = apply(dense, variables, x, Context.evaluation(), network="head")
    assert out["embedding"].shape == (2, 5)
    assert state == {}


def test_keys_go_by_name_and_are_missed_where_there_are_none():
    ctx = Context(jnp.int32(0), 1, True, jax.random.key(1))
    data = [jax.random.key_data(ctx.rng(name)) for name in ("noise", "time", "noise")]
    np.testing.assert_array_equal(data[0], data[2])
    assert np.any(data[0] != data[1])
    with pytest.raises(ValueError, match=r"ctx.rng\('noise'\): this context has no key"):
        Context.evaluation().rng("noise")


class Centred(Votes):
    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        return variables.merge(extra_state={"centre": batch["image"].mean(0)})


class More(Centred):
    """Inherits what it uses of the first batch."""


def test_the_first_batch_is_for_those_who_use_it():
    assert not Votes(Tower()).uses_first_batch
    state = make(Votes(Tower())).init(batch())
    assert make(Votes(Tower())).init_from_batch(state, batch()) is state
    step = make(More(Tower()))
    assert step.objective.uses_first_batch
    state = step.init_from_batch(step.init(batch()), batch())
    np.testing.assert_allclose(state.extra_state["centre"], batch()["image"].mean(0), rtol=1e-6)
    after, _ = step.update(state, batch())
    np.testing.assert_array_equal(after.extra_state["centre"], state.extra_state["centre"])


class Spread(BatchCoupled):
    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[Any, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        return out["embedding"], Aux({"first": jnp.float32(1)}, state)

    def loss_from_embeddings(
        self, variables: Variables, embeddings: Any, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        return embeddings.var(0).sum(), Aux({"second": jnp.float32(2)})


def test_a_batch_coupled_loss_is_that_of_its_embeddings():
    objective = Spread(Tower())
    assert objective.batch_coupled
    assert not Votes.batch_coupled
    variables = objective.init(jax.random.key(0), batch())
    loss, aux = objective.loss(variables, batch(), Context.evaluation())
    np.testing.assert_allclose(loss, batch()["image"].var(0).sum(), rtol=1e-4)
    assert set(aux.metrics) == {"first", "second"}
    with pytest.raises(ValueError, match="both return metrics first"):
        join(aux, Aux({"first": jnp.float32(1)}))


def test_objectives_are_frozen():
    objective = Votes(Tower())
    assert dataclasses.replace(objective, model=Tower(0.5)) != objective
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.model = Tower()  # pyright: ignore[reportAttributeAccessIssue]
